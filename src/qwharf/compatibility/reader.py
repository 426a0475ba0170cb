"""Read a platform's TOML file, and check it: nothing unknown, missing, or said twice.

::

    schema = 1
    title = "vLLM"
    aliases = ["…"]                   # optional
    stretches = true                  # YaRN can be switched on; default false
    single_file = true                # takes no GGUF in parts; default false
    [version]                         # the cells speak of …; any, or one by kind of device
    any = "0.33.0"
    least = "0.9.0"                   # optional, with why: older ones are refused
    why = "…"
    [preference]                      # by kind of device, 1 is the first choice; left out: never
    [kv_cache_types]                  # by kind of device, or any; the first is the default
    [adapters]                        # LoRA by name: the fields of cells.Adapters
    [[cell]]                          # the fields of cells.Cell

The files are shipped, so an error here is a bug of ours, not the user's doing; it is typed all the
same, since a platform's file is what a contributor writes first.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, NoReturn, get_args

from qwharf.compatibility.cells import (
    Adapters,
    Capability,
    Cell,
    Facts,
    Kind,
    Shape,
    Sure,
    version_key,
)
from qwharf.errors import InvalidFile
from qwharf.types import KvCacheType

SCHEMA = 1
HERE = Path(__file__).parent
KINDS: tuple[str, ...] = get_args(Kind)
SYSTEMS = ("Linux", "Darwin", "Windows")
_TABLES = {"version", "preference", "kv_cache_types", "adapters", "cell"}
_TOP = {"schema", "title", "aliases", "stretches", "single_file", *_TABLES}
_VERSION = {"any", "least", "why", *KINDS}
_FORMAT = re.compile(r"(gguf|safetensors|mlx):[a-z0-9_*-]+")
_CAPABILITY = re.compile(r"(\d{1,2})\.(\d)")
_WORD = re.compile(r"[A-Za-z0-9_.+-]+")


@cache
def platforms() -> Mapping[str, Facts]:
    """Every platform that has a file here, by name.

    Raises:
        InvalidFile: one of the files breaks a rule above.
    """
    found = {path.stem: read(path) for path in sorted(HERE.glob("*.toml"))}
    # First those that are first choice somewhere; it is the order in which people read of them.
    return dict(sorted(found.items(), key=lambda item: (min(item[1].preference.values()), item[0])))


def read(path: Path) -> Facts:
    """The platform that ``path`` is named after.

    Raises:
        InvalidFile: names the file, the place in it, what was found and what was expected.
    """
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise InvalidFile(str(path), found=str(e), expected="a platform's TOML file") from e
    return _Reader(path).facts(data)


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path

    def wrong(self, where: str, found: Any, expected: str) -> NoReturn:
        raise InvalidFile(
            str(self.path),
            found=f"{where}: {found!r}"[:300],
            expected=expected,
            hint="qwharf/compatibility/reader.py shows the form",
        )

    # -------------------------------------------------------------------------------- the file

    def facts(self, data: Mapping[str, Any]) -> Facts:
        self.known("the file", data, _TOP)
        if data.get("schema") != SCHEMA:
            self.wrong("schema", data.get("schema"), str(SCHEMA))
        version = self.table(data, "version")
        self.known("[version]", version, _VERSION)
        least = self.text(version, "least", "")
        cells = data.get("cell")
        if not isinstance(cells, list) or not cells:
            self.wrong("cell", cells, "one table [[cell]] or more")
        found = tuple(self.cell(f"[[cell]] {i}", raw) for i, raw in enumerate(cells, 1))
        facts = Facts(
            name=self.path.stem,
            title=self.text(data, "title"),
            aliases=self.words("the file", data, "aliases"),
            stretches=self.flag("the file", data, "stretches", False),
            single_file=self.flag("the file", data, "single_file", False),
            versions={k: self.text(version, k) for k in version if k not in ("least", "why")},
            least_version=least or None,
            least_why=self.text(version, "why", "" if not least else None),
            preference=self.preference(self.table(data, "preference")),
            kv_cache_types=self.kv_types(self.table(data, "kv_cache_types")),
            adapters=self.adapters(self.table(data, "adapters")),
            cells=found,
        )
        self.consistent(facts)
        return facts

    def preference(self, table: Mapping[str, Any]) -> dict[str, int]:
        self.known("[preference]", table, set(KINDS))
        for kind, rank in table.items():
            if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
                self.wrong(f"[preference] {kind}", rank, "a whole number from 1")
        return dict(table)

    def kv_types(self, table: Mapping[str, Any]) -> dict[str, tuple[KvCacheType, ...]]:
        self.known("[kv_cache_types]", table, {"any", *KINDS})
        allowed = get_args(KvCacheType)
        out: dict[str, tuple[KvCacheType, ...]] = {}
        for kind in table:
            types = self.words("[kv_cache_types]", table, kind)
            if not types or not set(types) <= set(allowed):
                self.wrong(f"[kv_cache_types] {kind}", types, f"some of {', '.join(allowed)}")
            out[kind] = types  # type: ignore[assignment]
        return out

    def adapters(self, table: Mapping[str, Any]) -> Adapters:
        self.known("[adapters]", table, {f.name for f in fields(Adapters)})
        runs = self.flag("[adapters]", table, "runs", True)
        return Adapters(
            runs=runs,
            why=self.text(table, "why", "" if runs else None),
            sure=self.sure("[adapters]", table),
            source=self.text(table, "source"),
        )

    def consistent(self, facts: Facts) -> None:
        """What must hold between the parts of a file."""
        served = {kind for kind in KINDS if facts.serves(kind)}  # type: ignore[arg-type]
        if not served:
            self.wrong("cells", "none that runs", "one at least")
        if "any" not in facts.versions and not served <= set(facts.versions):
            self.wrong("[version]", sorted(facts.versions), "any, or all kinds that cells run on")
        if set(facts.preference) != served:
            self.wrong("[preference]", sorted(facts.preference), f"exactly {sorted(served)}")
        if any(not facts.kv_types(kind) for kind in served):  # type: ignore[arg-type]
            self.wrong("[kv_cache_types]", sorted(facts.kv_cache_types), f"all of {sorted(served)}")
        for (i, one), (j, other) in combinations(enumerate(facts.cells, 1), 2):
            if _overlap(one, other):
                self.wrong(f"[[cell]] {i} and {j}", other.formats, "one cell for each combination")

    # ------------------------------------------------------------------------------------ cells

    def cell(self, at: str, raw: Any) -> Cell:
        if not isinstance(raw, Mapping):
            self.wrong(at, raw, "a table")
        self.known(at, raw, {f.name for f in fields(Cell)})
        formats = self.words(at, raw, "formats", _FORMAT)
        on = self.words(at, raw, "on")
        if not formats or not on or not set(on) <= set(KINDS):
            self.wrong(at, raw, f"formats, and on: some of {', '.join(KINDS)}")
        runs = self.flag(at, raw, "runs", True)
        shapes = self.words(at, raw, "shapes") or get_args(Shape)
        if not set(shapes) <= set(get_args(Shape)):
            self.wrong(f"{at} shapes", shapes, "dense, moe")
        systems = self.words(at, raw, "systems")
        if not set(systems) <= set(SYSTEMS):
            self.wrong(f"{at} systems", systems, f"some of {', '.join(SYSTEMS)}")
        least, below = self.capability(at, raw, "least"), self.capability(at, raw, "below")
        if (least or below) and on != ("nvidia",):
            self.wrong(f"{at} least", on, "a compute capability for nvidia alone")
        if least and below and least >= below:
            self.wrong(f"{at} below", below, "more than least")
        piece = raw.get("slice", 1)
        if isinstance(piece, bool) or not isinstance(piece, int) or piece < 1:
            self.wrong(f"{at} slice", piece, "a whole number from 1")
        return Cell(
            formats=formats,
            on=on,  # type: ignore[arg-type]
            runs=runs,
            why=self.text(raw, "why", "" if runs else None),
            sure=self.sure(at, raw),
            source=self.text(raw, "source"),
            shapes=shapes,  # type: ignore[arg-type]
            systems=systems,
            machines=self.words(at, raw, "machines"),
            least=least,
            below=below,
            instructions=self.words(at, raw, "instructions"),
            since=self.text(raw, "since", "") or None,
            until=self.text(raw, "until", "") or None,
            unasked=self.flag(at, raw, "unasked", True),
            slice=piece,
        )

    def sure(self, at: str, raw: Mapping[str, Any]) -> Sure:
        found = self.text(raw, "sure")
        if found not in get_args(Sure):
            self.wrong(f"{at} sure", found, f"one of {', '.join(get_args(Sure))}")
        return found  # type: ignore[return-value]

    def capability(self, at: str, raw: Mapping[str, Any], key: str) -> Capability | None:
        if key not in raw:
            return None
        found = _CAPABILITY.fullmatch(raw[key]) if isinstance(raw[key], str) else None
        if found is None:
            self.wrong(f"{at} {key}", raw[key], 'a text such as "8.9"')
        return int(found[1]), int(found[2])

    # ----------------------------------------------------------------------------------- values

    def known(self, at: str, data: Mapping[str, Any], keys: set[str]) -> None:
        unknown = sorted(set(data) - keys)
        if unknown:
            self.wrong(at, unknown[0], f"keys among {', '.join(sorted(keys))}")

    def table(self, data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        value = data.get(key)
        if not isinstance(value, Mapping):
            self.wrong(f"[{key}]", value, "a table")
        return value

    def text(self, data: Mapping[str, Any], key: str, default: str | None = None) -> str:
        value = data.get(key, default)
        if not isinstance(value, str) or (not value and key in data):
            self.wrong(key, value, "a text")
        return value

    def flag(self, at: str, data: Mapping[str, Any], key: str, default: bool) -> bool:
        value = data.get(key, default)
        if not isinstance(value, bool):
            self.wrong(f"{at} {key}", value, "true or false")
        return value

    def words(
        self, at: str, data: Mapping[str, Any], key: str, form: re.Pattern[str] = _WORD
    ) -> tuple[str, ...]:
        value = data.get(key, [])
        texts = value if isinstance(value, list) else [value]
        if not isinstance(value, list) or not all(
            isinstance(x, str) and form.fullmatch(x) for x in texts
        ):
            self.wrong(f"{at} {key}", value, "a list of texts")
        if len(set(value)) != len(value):
            self.wrong(f"{at} {key}", value, "each once")
        return tuple(value)


# --------------------------------------------------------------------------------------- overlaps


def _overlap(one: Cell, other: Cell) -> bool:
    """Whether some combination would find both cells."""
    return (
        _share(one.on, other.on)
        and _share(one.shapes, other.shapes)
        and (not one.systems or not other.systems or _share(one.systems, other.systems))
        and (not one.machines or not other.machines or _share(one.machines, other.machines))
        and any(_meet(a, b) for a in one.formats for b in other.formats)
        and _ranges_meet(one.least, one.below, other.least, other.below)
        and _ranges_meet(*_versions(one), *_versions(other))
    )


def _share(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return not set(one).isdisjoint(other)


def _meet(one: str, other: str) -> bool:
    """Whether two patterns, whose only star is their last letter, have a text in common."""
    a, b = one.removesuffix("*"), other.removesuffix("*")
    if a != one and b != other:
        return a.startswith(b) or b.startswith(a)
    if a != one:
        return other.startswith(a)
    return one.startswith(b) if b != other else one == other


def _versions(cell: Cell) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    since, until = cell.since, cell.until
    return (version_key(since) if since else None, version_key(until) if until else None)


def _ranges_meet(a_from: Any, a_to: Any, b_from: Any, b_to: Any) -> bool:
    return (a_to is None or b_from is None or b_from < a_to) and (
        b_to is None or a_from is None or a_from < b_to
    )
