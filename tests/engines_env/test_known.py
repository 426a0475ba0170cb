"""The recipes: whole, and chosen by engine, hardware and system."""

import pytest

from qwharf import engines
from qwharf.engines import known
from qwharf.engines.known import choose
from qwharf.errors import UsageError

LINUX, MAC = "linux-x86_64", "darwin-arm64"


def test_the_data_is_whole() -> None:
    assert {r.engine for r in known.recipes()} == set(engines.ENGINES)
    for recipe in known.recipes():
        assert recipe.source.startswith("https://")
        asked = [r for r in (*recipe.requirements, *recipe.bare) if "{version}" in r]
        assert len(asked) == 1, f"{recipe.engine} {recipe.variant}: the engine itself, once"
        assert recipe.pythons and recipe.systems and recipe.disk_bytes > 10**8
    keys = [(r.engine, r.variant) for r in known.recipes()]
    assert len(set(keys)) == len(keys)
    assert known.native().package == "llama-cpp-python"


@pytest.mark.parametrize(
    ("engine", "system", "nvidia", "variant"),
    [
        ("vllm", LINUX, False, "cpu"),
        ("vllm", LINUX, True, "cuda"),
        ("sglang", LINUX, False, "parser"),
        ("sglang", "linux-aarch64", True, "cuda"),
        ("mlx", LINUX, True, "cpu"),
        ("mlx", MAC, False, "metal"),
    ],
)
def test_the_default_suits_the_machine(
    engine: str, system: str, nvidia: bool, variant: str
) -> None:
    assert choose(engine, system=system, nvidia=nvidia).variant == variant


def test_another_version_is_asked_for_without_pins() -> None:
    recipe = choose("mlx", "0.33.0", "cpu", system=LINUX)
    assert recipe.filled(recipe.requirements) == ("mlx-lm==0.33.0", "mlx[cpu]")
    assert recipe.pins == () and recipe.seen is None
    assert choose("mlx", "0.32.2", "cpu", system=LINUX).pins


def test_llama_cpp_is_kept_by_its_kind() -> None:
    assert choose("llama.cpp", None, "vulkan", system=LINUX).folder_name == "vulkan"
    assert choose("vllm", None, "cpu", system=LINUX).folder_name == "0.32.0"


@pytest.mark.parametrize(
    ("engine", "version", "variant", "system", "says"),
    [
        ("tgi", None, None, LINUX, "vllm or sglang"),
        ("vllm", "../../evil", None, LINUX, "a version such as"),
        ("vllm", "latest", None, LINUX, "a version such as"),
        ("vllm", None, "rocm", LINUX, "--cpu, --cuda"),
        ("vllm", None, "cpu", "windows-x86_64", "linux-x86_64"),
        ("sglang", None, "cpu", LINUX, "--parser"),
        ("mlx", None, "metal", LINUX, "--cpu"),
        ("llama.cpp", None, None, LINUX, "--native"),
    ],
)
def test_what_makes_no_sense_is_refused(
    engine: str, version: str | None, variant: str | None, system: str, says: str
) -> None:
    with pytest.raises(UsageError) as refused:
        choose(engine, version, variant, system=system, nvidia=False)
    assert says in f"{refused.value.expected} {refused.value.hint}"
