"""The shipped files: complete, sourced, and in step with what they speak of elsewhere."""

from collections.abc import Iterable

import pytest

from qwharf import compatibility, platforms
from qwharf.compatibility import Cell, Device, lookup
from qwharf.compatibility.cells import version_key
from qwharf.engines.known import Recipe, recipes
from qwharf.formats.names import FORMATS
from qwharf.formats.weights import awq, compressed, fp8, gptq
from qwharf.platforms import llama_check, mlx, ollama_check, sglang_flags, vllm_flags
from qwharf.types import Format

ALL = compatibility.names()


def form(text: str) -> Format:
    container, _, quantization = text.partition(":")
    return Format(container, quantization)  # type: ignore[arg-type]


def test_every_platform_that_is_driven_is_known() -> None:
    assert set(platforms.names()) - {"endpoint"} <= set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_every_cell_has_a_source(name: str) -> None:
    facts = compatibility.facts(name)
    for cell in (*facts.cells, facts.adapters):
        assert len(cell.source) > 10
        assert cell.runs or cell.why


@pytest.mark.parametrize("name", ALL)
def test_every_pattern_means_a_format(name: str) -> None:
    known = [*FORMATS, *(Format("mlx", q) for q in ("f16", "f32"))]
    for cell in compatibility.facts(name).cells:
        for pattern in cell.formats:
            one = Cell(formats=(pattern,), on=cell.on, runs=True, why="", sure="seen", source="")
            assert any(one.speaks_of(f) for f in known), pattern


@pytest.mark.parametrize("name", ALL)
def test_every_format_has_an_answer_with_a_reason(name: str) -> None:
    for format in FORMATS:
        for kind in ("cpu", "nvidia", "amd", "apple"):
            verdict = lookup(name, format, moe=False, device=Device(kind=kind))  # type: ignore[arg-type]
            assert verdict.runs or len(verdict.why) > 10


@pytest.mark.parametrize("name", [n for n in platforms.names() if n in ALL])
def test_what_runs_is_what_the_driver_takes(name: str) -> None:
    taken = platforms.get(name).formats()
    runs = {f for f in FORMATS if compatibility.runs_anywhere(name, f, moe=False)}
    assert runs <= set(taken)
    assert {f.container for f in runs} == {f.container for f in taken}


@pytest.mark.parametrize(
    ("name", "least"),
    [("vllm", vllm_flags.LEAST), ("sglang", sglang_flags.LEAST), ("mlx", mlx.ENGINE.least)],
)
def test_the_oldest_version_is_the_drivers(name: str, least: str) -> None:
    assert compatibility.facts(name).least_version == least


def test_ollama_is_as_old_as_the_driver_takes_it() -> None:
    least = compatibility.facts("ollama").least_version
    assert version_key(least or "") == ollama_check.OLDEST


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("llama.cpp", llama_check.KV_CACHE_TYPES),
        ("vllm", vllm_flags.KV_CACHE_TYPES),
        ("sglang", sglang_flags.KV_CACHE_TYPES),
        ("mlx", mlx.KV_BITS),
        ("ollama", ollama_check.KV_CACHE_TYPES),
    ],
)
def test_types_of_the_kv_cache_are_the_drivers(name: str, types: Iterable[str]) -> None:
    facts = compatibility.facts(name)
    assert {t for kind in facts.preference for t in facts.kv_types(kind)} == set(types)  # type: ignore[arg-type]


GROUPS = {
    "fp8": fp8.BLOCK,
    "awq": awq.GROUP,
    "gptq-int4": gptq.GROUP,
    "gptq-int8": gptq.GROUP,
    "w4a16": compressed.GROUP,
}
"""Inputs that share a scale in what is published, and made here."""


@pytest.mark.parametrize("name", ["vllm", "sglang"])
@pytest.mark.parametrize("quantization", GROUPS)
def test_slices_are_whole_groups(name: str, quantization: str) -> None:
    format = Format("safetensors", quantization)
    assert compatibility.slice_of(name, format, "nvidia") % GROUPS[quantization] == 0
    cells = [c for c in compatibility.facts(name).cells if c.speaks_of(format) and c.runs]
    assert len({c.slice for c in cells if "nvidia" in c.on}) == 1, (
        "it is the format's, not a card's"
    )


VARIANTS = {"cpu": "cpu", "cuda": "nvidia", "vulkan": "nvidia", "metal": "apple", "rocm": "amd"}


@pytest.mark.parametrize(
    "recipe",
    [r for r in recipes() if r.engine in ALL and r.variant in VARIANTS],
    ids=lambda r: f"{r.engine}-{r.variant}",
)
def test_what_is_installed_is_what_the_cells_speak_of(recipe: Recipe) -> None:
    kind = VARIANTS[recipe.variant]
    assert compatibility.facts(recipe.engine).version(kind) == recipe.version  # type: ignore[arg-type]


# ------------------------------------------------------------------------- facts, one by one

X86 = Device(kind="cpu", machine="x86_64", instructions=frozenset({"avx2", "avx512f"}))
AMX = Device(kind="cpu", machine="x86_64", instructions=frozenset({"avx2", "amx_tile"}))
ARM = Device(kind="cpu", machine="arm64")
MAC = Device(kind="apple", system="Darwin", machine="arm64")


def card(capability: str) -> Device:
    major, _, minor = capability.partition(".")
    return Device(kind="nvidia", name=f"sm {capability}", capability=(int(major), int(minor)))


@pytest.mark.parametrize(
    ("name", "format", "device", "moe", "runs", "sure"),
    [
        # vLLM on a processor, as it was seen
        ("vllm", "safetensors:bf16", X86, False, True, "seen"),
        ("vllm", "safetensors:bf16", X86, True, True, "seen"),
        ("vllm", "safetensors:w8a8", X86, False, True, "seen"),
        ("vllm", "safetensors:w4a16", X86, False, True, "seen"),
        ("vllm", "safetensors:gptq-int4", X86, False, True, "seen"),
        ("vllm", "safetensors:awq", X86, False, True, "seen"),
        ("vllm", "safetensors:fp8-channel", X86, False, True, "seen"),
        ("vllm", "safetensors:fp8", X86, False, False, None),
        ("vllm", "safetensors:fp8", AMX, False, True, "inferred"),
        ("vllm", "safetensors:awq", X86, True, False, None),
        ("vllm", "safetensors:gptq-int8", X86, False, False, None),
        ("vllm", "safetensors:bf16", ARM, False, False, None),
        ("vllm", "gguf:q8_0", X86, False, False, None),
        # vLLM on cards, as it was read
        ("vllm", "safetensors:fp8", card("7.5"), False, True, "read"),
        ("vllm", "safetensors:fp8", card("7.0"), False, False, None),
        ("vllm", "safetensors:awq", card("7.5"), True, True, "read"),
        ("vllm", "safetensors:awq", card("6.1"), False, False, None),
        ("vllm", "safetensors:gptq-int4", card("6.0"), False, True, "read"),
        ("vllm", "safetensors:gptq-int4", card("6.0"), True, False, None),
        ("vllm", "safetensors:w4a16", card("7.0"), False, False, None),
        ("vllm", "gguf:q4_k_m", card("9.0"), False, False, None),
        # SGLang
        ("sglang", "safetensors:bf16", X86, False, False, None),
        ("sglang", "safetensors:bf16", card("8.0"), False, True, "read"),
        ("sglang", "safetensors:fp8", card("8.6"), False, True, "read"),
        ("sglang", "safetensors:fp8", card("8.6"), True, False, None),
        ("sglang", "safetensors:fp8", card("8.9"), True, True, "read"),
        ("sglang", "safetensors:w4a16", card("7.5"), False, False, None),
        # the others
        ("llama.cpp", "gguf:iq1_s", ARM, True, True, "seen"),
        ("ollama", "gguf:q4_k_m", card("5.2"), False, True, "read"),
        ("ollama", "safetensors:bf16", X86, False, False, None),
        ("lmstudio", "mlx:4bit", MAC, False, True, "read"),
        ("lmstudio", "mlx:4bit", X86, False, False, None),
        ("mlx", "mlx:4bit", X86, True, True, "seen"),
        ("mlx", "mlx:8bit", X86, False, True, "seen"),
        ("mlx", "mlx:6bit", X86, False, True, "seen"),
        ("mlx", "mlx:5bit", X86, False, True, "read"),
        ("mlx", "safetensors:bf16", X86, False, True, "seen"),
        ("mlx", "safetensors:awq", X86, False, False, None),
        ("mlx", "mlx:4bit", MAC, False, True, "read"),
        ("mlx", "gguf:q8_0", MAC, False, False, None),
    ],
)
def test_facts(
    name: str, format: str, device: Device, moe: bool, runs: bool, sure: str | None
) -> None:
    verdict = lookup(name, form(format), moe=moe, device=device)
    assert verdict.runs == runs, verdict.why
    assert sure is None or verdict.sure == sure
