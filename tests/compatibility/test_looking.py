"""Look-ups: what is judged, what is not, and the sentences."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwharf import compatibility
from qwharf.compatibility import Device, canonical, device_of, devices, instead, lookup
from qwharf.compatibility.cells import version_key
from qwharf.formats.names import FORMATS
from qwharf.types import Cpu, Format, Gpu, Hardware

BF16, FP8, AWQ = (Format("safetensors", q) for q in ("bf16", "fp8", "awq"))
Q4 = Format("gguf", "q4_k_m")
H100 = Device(kind="nvidia", name="NVIDIA H100", capability=(9, 0))


def test_what_is_not_known_of_the_hardware_is_not_judged() -> None:
    assert lookup("vllm", FP8, moe=False, device=replace(H100, capability=None)).runs
    unknown = Device(kind="cpu")
    assert lookup("vllm", BF16, moe=False, device=unknown).runs


def test_the_reason_names_what_is_there_and_what_is_needed() -> None:
    old = Device(kind="nvidia", name="Tesla P100", capability=(6, 0))
    why = lookup("vllm", AWQ, moe=False, device=old).why
    assert why == "safetensors:awq on vLLM needs compute capability 7.5; Tesla P100 has 6.0"
    avx = Device(kind="cpu", machine="x86_64", instructions=frozenset({"avx2"}))
    assert "AMX TILE" in lookup("vllm", FP8, moe=False, device=avx).why
    windows = replace(H100, system="Windows")
    assert lookup("vllm", BF16, moe=False, device=windows).why == "vLLM runs it on Linux only"
    assert "GGUF files only" in lookup("llama.cpp", BF16, moe=False, device=H100).why
    radeon = Device(kind="amd", name="Radeon")
    assert "NVIDIA GPUs and" in lookup("vllm", BF16, moe=False, device=radeon).why or (
        "processors and NVIDIA GPUs only" in lookup("vllm", BF16, moe=False, device=radeon).why
    )


def test_what_is_worth_knowing_of_what_runs() -> None:
    ampere = Device(kind="nvidia", name="RTX 3090", capability=(8, 6))
    assert "unpacked" in lookup("vllm", FP8, moe=False, device=ampere).why
    assert lookup("vllm", FP8, moe=False, device=H100).why == ""


def test_versions() -> None:
    told = compatibility.facts("vllm")
    old = lookup("vllm", BF16, moe=False, device=H100, version="0.8.4")
    assert not old.runs
    assert "0.8.4 is too old" in old.why
    assert told.least_version is not None
    assert told.least_version in old.why
    same = lookup("vllm", BF16, moe=False, device=H100, version=told.version("nvidia"))
    newer = lookup("vllm", BF16, moe=False, device=H100, version="99.0")
    assert (same.sure, newer.sure) == ("read", "inferred")
    assert newer.runs


def test_versions_are_ordered_by_their_numbers() -> None:
    texts = ["0.9.2", "0.10", "0.10.1.1", "0.33.0+cpu", "2026.10.11549"]
    assert sorted(texts, key=version_key) == texts


def test_what_works_instead() -> None:
    cpu = Device(kind="cpu", machine="x86_64")
    assert instead(AWQ, moe=False, devices=[cpu]) == ("vllm",)
    assert instead(BF16, moe=False, devices=[H100, cpu])[:2] == ("vllm", "sglang")
    assert instead(Q4, moe=True, devices=[cpu])[0] == "llama.cpp"
    assert instead(Q4, moe=True, devices=[cpu], among=("vllm",)) == ()


def test_names_and_aliases() -> None:
    assert canonical(" LM-Studio ") == "lmstudio"
    assert canonical("vLLM") == "vllm"
    assert canonical("tensorrt") is None
    assert all(canonical(n) == n for n in compatibility.names())


def test_the_devices_of_a_machine() -> None:
    card = Gpu(
        index=0,
        vendor="nvidia",
        name="A",
        memory_total_bytes=1,
        memory_free_bytes=1,
        compute_capability=(8, 0),
    )
    machine = Hardware(
        system="Linux",
        cpu=Cpu(
            name="C",
            machine="AMD64",
            physical_cores=None,
            logical_cores=None,
            usable_cores=None,
            instruction_sets=frozenset({"avx2"}),
        ),
        memory_total_bytes=None,
        memory_available_bytes=None,
        gpus=(card, replace(card, index=1, name="B")),
    )
    gpu, cpu = devices(machine)
    assert (gpu.kind, gpu.name, gpu.capability) == ("nvidia", "A", (8, 0))
    assert (cpu.kind, cpu.machine) == ("cpu", "x86_64")
    assert device_of(machine, None) == cpu


@given(
    name=st.sampled_from(compatibility.names()),
    format=st.sampled_from(list(FORMATS)) | st.builds(Format, st.just("gguf"), st.text()),
    moe=st.booleans(),
    kind=st.sampled_from(["cpu", "nvidia", "amd", "apple"]),
    system=st.sampled_from(["Linux", "Darwin", "Windows", "Plan 9"]),
    capability=st.none() | st.tuples(st.integers(0, 12), st.integers(0, 9)),
    instructions=st.frozensets(st.sampled_from(["avx2", "amx_tile", "neon"])),
    version=st.none() | st.text(max_size=20),
)
def test_anything_gets_an_answer(
    name: str, format: Format, moe: bool, kind: str, system: str,
    capability: tuple[int, int] | None, instructions: frozenset[str], version: str | None,
) -> None:  # fmt: skip
    device = Device(
        kind=kind,  # type: ignore[arg-type]
        system=system,
        capability=capability if kind == "nvidia" else None,
        instructions=instructions,
    )
    verdict = lookup(name, format, moe=moe, device=device, version=version)
    assert verdict.runs or verdict.why
    if verdict.runs:
        assert verdict.cell is not None
        assert kind in verdict.cell.on
        assert (
            capability is None
            or kind != "nvidia"
            or (verdict.cell.least is None or capability >= verdict.cell.least)
        )


@pytest.mark.parametrize("name", compatibility.names())
def test_a_better_card_never_runs_less(name: str) -> None:
    steps = [(6, 0), (7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (12, 0)]
    for format in FORMATS:
        for moe in (False, True):
            runs = [
                lookup(
                    name, format, moe=moe, device=Device(kind="nvidia", capability=capability)
                ).runs
                for capability in steps
            ]
            assert runs == sorted(runs), f"{format} on {name}"
