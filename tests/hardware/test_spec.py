"""``--hardware FILE``: the examples, the way there and back, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwharf import hardware
from qwharf.errors import InvalidFile, UsageError
from qwharf.hardware.spec import parse_size, parse_spec
from qwharf.types import Cpu, Gpu, Hardware

EXAMPLES = Path(__file__).parents[2] / "docs/hardware"
GIB = 2**30


@pytest.mark.parametrize("name", ["laptop", "two-h100", "mac"])
def test_the_shipped_examples(name: str) -> None:
    machine = hardware.load_spec(EXAMPLES / f"{name}.toml")
    assert machine.memory_total_bytes
    assert machine.gpus
    assert machine.source != name


def test_counted_cards_are_numbered() -> None:
    machine = hardware.load_spec(EXAMPLES / "two-h100.toml")
    assert [g.index for g in machine.gpus] == [0, 1]
    assert {g.compute_capability for g in machine.gpus} == {(9, 0)}
    assert {g.bandwidth_bytes_per_second for g in machine.gpus} == {3.35e12}


def test_unified_memory_is_the_gpus_too() -> None:
    machine = hardware.load_spec(EXAMPLES / "mac.toml")
    assert machine.unified_memory
    assert machine.gpus[0].memory_total_bytes == 64 * GIB


def test_the_documented_form_is_the_whole_form() -> None:
    """Every key that docs/hardware.md lists is understood, and every key is listed."""
    from qwharf.hardware import spec

    text = (EXAMPLES.parent / "hardware.md").read_text("utf-8")
    for key in spec._TOP | spec._CPU | spec._GPU:
        assert f"`{key}`" in text or f"`[{key}]`" in text or f"`[[{key}]]`" in text, key


def test_the_documented_example(tmp_path: Path) -> None:
    text = (EXAMPLES.parent / "hardware.md").read_text("utf-8")
    file = tmp_path / "cellar.toml"
    file.write_text(text.partition("```toml\n")[2].partition("```")[0], "utf-8")
    machine = hardware.load_spec(file)
    assert machine.memory_total_bytes == 128 * GIB
    assert len(machine.gpus) == 2
    assert machine.gpus[1].bandwidth_bytes_per_second == 936e9


def test_this_machine_survives_the_way_there_and_back(tmp_path: Path) -> None:
    machine = hardware.detect(tmp_path)
    file = tmp_path / "machine.toml"
    file.write_text(hardware.to_toml(machine), "utf-8")
    assert hardware.load_spec(file) == machine


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
sizes = st.integers(1, 2**50)


@st.composite
def machines(draw: st.DrawFn) -> Hardware:
    total = draw(sizes)
    logical = draw(st.integers(1, 256))
    gpus = []
    for index in range(draw(st.integers(0, 3))):
        memory = draw(sizes)
        gpus.append(
            Gpu(
                index=index,
                vendor=draw(st.sampled_from(["nvidia", "amd", "apple"])),
                name=draw(names),
                memory_total_bytes=memory,
                memory_free_bytes=draw(st.integers(1, memory)),
                compute_capability=draw(
                    st.none() | st.tuples(st.integers(1, 12), st.integers(0, 9))
                ),
                driver=draw(st.none() | names),
                bandwidth_bytes_per_second=draw(st.none() | st.floats(1, 1e15)),
            )
        )
    return Hardware(
        system=draw(st.sampled_from(["Linux", "Darwin", "Windows"])),
        cpu=Cpu(
            name=draw(st.none() | names),
            machine=draw(names),
            physical_cores=draw(st.none() | st.integers(1, 128)),
            logical_cores=logical,
            usable_cores=draw(st.floats(0.1, 256)),
            instruction_sets=frozenset(draw(st.sets(st.sampled_from(["avx2", "neon", "sve"])))),
        ),
        memory_total_bytes=total,
        memory_available_bytes=draw(st.integers(1, total)),
        memory_limit_bytes=draw(st.none() | sizes),
        gpus=tuple(gpus),
        unified_memory=draw(st.booleans()),
        disk_free_bytes=draw(st.none() | sizes),
        source=draw(names),
    )


@given(machine=machines())
def test_any_machine_survives_the_way_there_and_back(
    machine: Hardware, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "machine.toml"
    file.write_text(hardware.to_toml(machine), "utf-8")
    assert hardware.load_spec(file) == machine


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", "memory"),
        ('memory = "64 GiB"\nmemry = 5', "memry"),
        ('memory = "a lot"', "memory"),
        ("memory = -5", "memory"),
        ("memory = true", "memory"),
        ("memory = 64\nmemory_available = 65", "memory_available"),
        ("memory = 64\ncpu = 5", "cpu"),
        ("memory = 64\n[cpu]\ncores = 0", "cores"),
        ("memory = 64\n[cpu]\ncores = 2.5", "cores"),
        ("memory = 64\n[cpu]\nusable_cores = nan", "usable_cores"),
        ("memory = 64\n[cpu]\ninstruction_sets = 'avx2'", "instruction_sets"),
        ("memory = 64\ngpu = 5", "gpu"),
        ("memory = 64\n[[gpu]]", "memory"),
        ("memory = 64\n[[gpu]]\nmemory = 5\nvendor = 'intel'", "vendor"),
        ("memory = 64\n[[gpu]]\nmemory = 5\nmemory_free = 6", "memory_free"),
        ("memory = 64\n[[gpu]]\nmemory = 5\ncount = 1000", "count"),
        ("memory = 64\n[[gpu]]\nmemory = 5\ncompute_capability = 'nine'", "compute_capability"),
        ("memory = 64\n[[gpu]]\nmemory = 5\nbandwidth = 'fast'", "bandwidth"),
        ("memory = 64\nunified_memory = 'yes'", "unified_memory"),
        ("memory = 64\nname = ''", "name"),
    ],
)
def test_a_wrong_key_is_named(text: str, key: str, tmp_path: Path) -> None:
    file = tmp_path / "machine.toml"
    file.write_text(text, "utf-8")
    with pytest.raises(InvalidFile) as error:
        hardware.load_spec(file)
    assert key in error.value.found
    assert error.value.expected
    assert "doctor --toml" in error.value.hint


@pytest.mark.parametrize("raw", [b"memory = ", b"\xff\xfe", b"= 5", b"[[[", b"a" * 10])
def test_what_is_no_toml(raw: bytes, tmp_path: Path) -> None:
    file = tmp_path / "machine.toml"
    file.write_bytes(raw)
    with pytest.raises(InvalidFile):
        hardware.load_spec(file)


def test_too_large_a_file(tmp_path: Path) -> None:
    file = tmp_path / "machine.toml"
    file.write_bytes(b"# " + b"x" * (1 << 21))
    with pytest.raises(InvalidFile, match="MiB"):
        hardware.load_spec(file)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        hardware.load_spec(tmp_path / "missing.toml")
    with pytest.raises(UsageError):
        hardware.load_spec(tmp_path)


@pytest.mark.parametrize(
    ("value", "size"),
    [("64 GiB", 64 * GIB), ("64gib", 64 * GIB), ("1.5 GB", 1_500_000_000), ("4,096 MiB", 4 * GIB),
     ("100", 100), (100, 100), ("-1 GB", None), ("GB", None), ("", None), (0, None), (True, None),
     (1.5, None), ("1e400 B", None), ("64 GBs", None), ("nan GB", None), ("inf GB", None)],
)  # fmt: skip
def test_sizes(value: object, size: int | None) -> None:
    assert parse_size(value) == size


toml_values: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
keys = st.sampled_from(
    ["name", "system", "memory", "memory_available", "cpu", "gpu", "unified_memory", "cores",
     "count", "vendor", "bandwidth", "compute_capability", "usable_cores"]
)  # fmt: skip


@given(st.dictionaries(keys, toml_values | st.dictionaries(keys, toml_values)))
def test_anything_is_a_machine_or_a_clear_error(data: dict[str, Any]) -> None:
    try:
        machine = parse_spec(data, Path("machine.toml"))
    except InvalidFile as error:
        assert error.found
        assert error.expected
    else:
        assert machine.memory_total_bytes
