"""A machine in a TOML file, so that a laptop can plan for a server. The form: docs/hardware.md."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from qwharf.errors import InvalidFile, UsageError
from qwharf.types import Cpu, Gpu, Hardware

MAX_FILE_BYTES = 1 << 20
MAX_GPUS = 64
MAX_BYTES = 1 << 60
UNITS = {
    "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
EXAMPLE = 'memory = "64 GiB"'

_TOP = frozenset(
    [
        "name",
        "system",
        "unified_memory",
        "memory",
        "memory_available",
        "memory_limit",
        "disk_free",
        "cpu",
        "gpu",
    ]
)
_CPU = frozenset(["name", "machine", "cores", "threads", "usable_cores", "instruction_sets"])
_GPU = frozenset(
    [
        "name",
        "vendor",
        "count",
        "memory",
        "memory_free",
        "compute_capability",
        "driver",
        "bandwidth",
    ]
)
VENDORS = ("nvidia", "amd", "apple")


def load_spec(path: Path) -> Hardware:
    """The machine that a TOML file describes.

    What the file leaves out is unknown, except that memory said to be there is taken to be free.

    Raises:
        UsageError: there is no such file, or it cannot be read.
        InvalidFile: it is no TOML, or a key is unknown, missing or out of range; names the key.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as e:
        raise UsageError(
            str(path),
            found=e.strerror or str(e),
            expected="a TOML file that describes a machine",
            hint="`qwharf doctor --toml > machine.toml` writes one for this machine",
        ) from e
    if len(raw) > MAX_FILE_BYTES:
        raise _wrong(path, f"more than {MAX_FILE_BYTES >> 20} MiB", "a short TOML file")
    try:
        return parse_spec(tomllib.loads(raw.decode("utf-8-sig")), path)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise _wrong(path, f"text that is not TOML ({e})", "TOML, in UTF-8") from e


def parse_spec(data: Mapping[str, Any], path: Path) -> Hardware:
    """The machine from the parsed file; ``path`` is for messages and the machine's name.

    Raises:
        InvalidFile: a key is unknown, missing or out of range.
    """
    top = _Table(path, "", data, _TOP)
    total = top.size("memory")
    if total is None:
        raise _wrong(path, "no `memory`", f"how much there is, for example {EXAMPLE}")
    limit = top.size("memory_limit")
    available = top.size("memory_available")
    if available is None:
        available = min(total, limit) if limit else total
    if available > total:
        raise _wrong(path, "`memory_available` above `memory`", "at most as much as there is")
    cpu = _Table(path, "cpu", top.table("cpu"), _CPU)
    threads, cores = cpu.count("threads"), cpu.count("cores")
    logical = threads or cores
    unified = top.flag("unified_memory")
    return Hardware(
        system=top.text("system") or "Linux",
        cpu=Cpu(
            name=cpu.text("name"),
            machine=cpu.text("machine") or "x86_64",
            physical_cores=cores,
            logical_cores=logical,
            usable_cores=cpu.number("usable_cores") or (float(logical) if logical else None),
            instruction_sets=cpu.words("instruction_sets"),
        ),
        memory_total_bytes=total,
        memory_available_bytes=available,
        memory_limit_bytes=limit,
        gpus=_gpus(path, top.tables("gpu"), total if unified else None),
        unified_memory=unified,
        disk_free_bytes=top.size("disk_free"),
        source=top.text("name") or path.name,
    )


def _gpus(path: Path, tables: list[Any], shared_bytes: int | None) -> tuple[Gpu, ...]:
    found: list[Gpu] = []
    for number, data in enumerate(tables, 1):
        table = _Table(path, f"gpu {number}", data, _GPU)
        vendor = table.text("vendor") or "nvidia"
        if vendor not in VENDORS:
            raise table.wrong("vendor", repr(vendor), f"one of {', '.join(VENDORS)}")
        memory = table.size("memory")
        if memory is None:
            memory = shared_bytes
        if memory is None:
            raise table.wrong("memory", "nothing", 'the memory of one card, as in "80 GiB"')
        free = table.size("memory_free")
        if free is not None and free > memory:
            raise table.wrong("memory_free", "more than `memory`", "at most as much as there is")
        count = table.count("count") or 1
        if len(found) + count > MAX_GPUS:
            raise table.wrong("count", str(count), f"at most {MAX_GPUS} cards together")
        for _ in range(count):
            found.append(
                Gpu(
                    index=len(found),
                    vendor=cast(Any, vendor),
                    name=table.text("name") or f"{vendor} GPU",
                    memory_total_bytes=memory,
                    memory_free_bytes=memory if free is None else free,
                    compute_capability=table.version("compute_capability"),
                    driver=table.text("driver"),
                    bandwidth_bytes_per_second=table.rate("bandwidth"),
                )
            )
    return tuple(found)


def to_toml(machine: Hardware) -> str:
    """``machine`` as a file for :func:`load_spec`, which gives the same machine back.

    Facts that are not known are left out; two cards become one table only when nothing but their
    index differs.
    """
    cpu = machine.cpu
    lines = _pairs(
        name=machine.source,
        system=machine.system,
        memory=machine.memory_total_bytes,
        memory_available=machine.memory_available_bytes,
        memory_limit=machine.memory_limit_bytes,
        disk_free=machine.disk_free_bytes,
        unified_memory=machine.unified_memory or None,
    )
    lines += ["", "[cpu]"]
    lines += _pairs(
        name=cpu.name,
        machine=cpu.machine,
        cores=cpu.physical_cores,
        threads=cpu.logical_cores,
        usable_cores=cpu.usable_cores,
        instruction_sets=sorted(cpu.instruction_sets) or None,
    )
    for gpu in machine.gpus:
        capability = gpu.compute_capability
        lines += ["", "[[gpu]]"]
        lines += _pairs(
            name=gpu.name,
            vendor=gpu.vendor,
            memory=gpu.memory_total_bytes,
            memory_free=gpu.memory_free_bytes,
            compute_capability=None if capability is None else f"{capability[0]}.{capability[1]}",
            driver=gpu.driver,
            bandwidth=gpu.bandwidth_bytes_per_second,
        )
    return "\n".join(lines) + "\n"


def _pairs(**values: Any) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in values.items() if value is not None]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(_escaped(c) for c in value) + '"'
    return repr(value)


def _escaped(c: str) -> str:
    if c in '"\\':
        return "\\" + c
    # A lone surrogate (from a file name) cannot be written in UTF-8.
    if "\ud800" <= c <= "\udfff":
        return "?"
    return f"\\u{ord(c):04X}" if ord(c) < 0x20 or ord(c) == 0x7F else c


# ----------------------------------------------------------------------------------------- inside


def parse_size(value: object) -> int | None:
    """Bytes from a whole number or from text such as ``"64 GiB"``; ``None`` if it is neither."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if 0 < value <= MAX_BYTES else None
    if not isinstance(value, str) or len(value) > 40:
        return None
    text = value.strip().lower().replace(",", "").replace("_", "")
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyz").strip()
    unit = text[len(digits) :].strip() or "b"
    try:
        size = float(digits) * UNITS[unit]
    except (ValueError, KeyError):
        return None
    return round(size) if math.isfinite(size) and 0 < round(size) <= MAX_BYTES else None


def _wrong(path: Path, found: str, expected: str) -> InvalidFile:
    return InvalidFile(
        str(path),
        found=found,
        expected=expected,
        hint="docs/hardware.md has the form; `qwharf doctor --toml` prints this machine",
    )


class _Table:
    """One table of the file: typed look-ups that name the key when they fail."""

    def __init__(self, path: Path, where: str, data: Any, known: frozenset[str]) -> None:
        self.path, self.where, self.data = path, where, data
        if not isinstance(data, Mapping):
            raise _wrong(path, f"`{where}` that is no table", "a table of keys and values")
        unknown = sorted(set(data) - known)
        if unknown:
            raise self.wrong(unknown[0], "a key of that name", f"one of {', '.join(sorted(known))}")

    def wrong(self, key: str, found: str, expected: str) -> InvalidFile:
        place = f"`{key}`" + (f" of [{self.where}]" if self.where else "")
        return _wrong(self.path, f"{place}: {found[:80]}", expected)

    def text(self, key: str) -> str | None:
        value = self.data.get(key)
        if value is not None and (not isinstance(value, str) or not value or len(value) > 200):
            raise self.wrong(key, repr(value), "a text")
        return value

    def flag(self, key: str) -> bool:
        value = self.data.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, repr(value), "true or false")
        return value

    def size(self, key: str) -> int | None:
        if key not in self.data:
            return None
        size = parse_size(self.data[key])
        if size is None:
            raise self.wrong(key, repr(self.data[key]), 'bytes, or a text such as "64 GiB"')
        return size

    def rate(self, key: str) -> float | None:
        value = self.data.get(key)
        if value is None:
            return None
        if isinstance(value, float) and math.isfinite(value) and 0 < value <= MAX_BYTES:
            return value
        text = value.strip() if isinstance(value, str) else value
        size = parse_size(
            text[: -len("/s")] if isinstance(text, str) and text[-2:] == "/s" else text
        )
        if size is None:
            raise self.wrong(key, repr(value), 'bytes per second, or a text such as "936 GB/s"')
        return float(size)

    def count(self, key: str) -> int | None:
        value = self.data.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= 65_536:
            raise self.wrong(key, repr(value), "a whole number from 1")
        return value

    def number(self, key: str) -> float | None:
        value = self.data.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, repr(value), "a number")
        if not (math.isfinite(value) and 0 < value <= 65_536):
            raise self.wrong(key, repr(value), "a number above 0")
        return float(value)

    def version(self, key: str) -> tuple[int, int] | None:
        value = self.data.get(key)
        if value is None:
            return None
        major, dot, minor = str(value).partition(".")
        if not (
            dot and major.isascii() and minor.isascii() and major.isdigit() and minor.isdigit()
        ):
            raise self.wrong(key, repr(value), 'a text such as "8.9"')
        if len(major) > 2 or len(minor) > 2:
            raise self.wrong(key, repr(value), 'a text such as "8.9"')
        return int(major), int(minor)

    def words(self, key: str) -> frozenset[str]:
        value = self.data.get(key, [])
        if not isinstance(value, list) or not all(isinstance(x, str) and x for x in value):
            raise self.wrong(key, repr(value), "a list of texts")
        return frozenset(x.lower() for x in value)

    def table(self, key: str) -> Any:
        return self.data.get(key, {})

    def tables(self, key: str) -> list[Any]:
        value = self.data.get(key, [])
        if not isinstance(value, list):
            raise self.wrong(key, type(value).__name__, f"tables written [[{key}]]")
        return value
