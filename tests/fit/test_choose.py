"""What ``up`` chooses by itself, and how it refuses."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwharf import catalog, fit, memory
from qwharf.errors import DoesNotFit, FormatUnavailable, UsageError
from qwharf.fit import Engine, Means, Wishes
from qwharf.fit.budget import budget
from qwharf.types import Cpu, Format, Hardware, Plan

from .machines import GIB, host, mac, nvidia

Q4, Q8, BF16 = (Format("gguf", q) for q in ("q4_k_m", "q8_0", "bf16"))
AWQ = Format("safetensors", "awq")


def means(machine: Hardware, *more: str) -> Means:
    """The embedded engine, from PyPI's wheel, and ``more``."""
    embedded = Engine(version="2026.10.11549", gpu=machine.unified_memory)
    return Means(installed={"llama.cpp": embedded, **{name: Engine() for name in more}})


def chosen(name: str, machine: Hardware, *installed: str, **wishes: object) -> Plan:
    wanted = Wishes(**wishes)  # type: ignore[arg-type]
    model = catalog.find(name)
    return fit.choose(model, machine, wanted, catalog.models(), means(machine, *installed))


# --------------------------------------------------------------------------------------- defaults


@pytest.mark.parametrize(
    ("name", "gib", "format", "context"),
    [
        ("qwen3:0.6b", 24, "q8_0", 32_768),
        ("qwen3:0.6b", 8, "q8_0", 16_384),
        ("qwen3:4b", 24, "q8_0", 32_768),
        ("qwen3:8b", 24, "q4_k_m", 32_768),
        ("qwen3:8b", 16, "q4_k_m", 16_384),
        ("qwen3:30b-a3b", 64, "q8_0", 16_384),
        ("qwen3:30b-a3b", 24, "q4_k_m", 32_768),
        ("qwen3:14b", 12, "q4_k_m", 16_384),
        ("qwen3:8b", 6, "q4_k_m", 4_096),
        ("qwen3:8b", 5, "q3_k_m", 4_096),
    ],
)
def test_defaults_follow_memory(name: str, gib: int, format: str, context: int) -> None:
    plan = chosen(name, host(gib))
    assert (plan.format.quantization, plan.context_tokens) == (format, context)
    assert plan.platform == "llama.cpp"
    assert plan.parallel == 1
    assert plan.kv_cache_type == "f16"
    assert plan.gpu_layers == 0


def test_the_default_does_not_wander_with_what_other_programs_use() -> None:
    """Asked again while the first deployment runs, ``up`` must come to the same plan."""
    machine = host(32)
    first = chosen("qwen3:8b", machine)
    used = first.memory_bytes()
    later = replace(machine, memory_available_bytes=machine.memory_total_bytes - used)
    again = chosen("qwen3:8b", later)
    assert (again.format, again.context_tokens) == (first.format, first.context_tokens)


def test_every_reason_is_told() -> None:
    reasons = "\n".join(chosen("qwen3:8b", host(24)).reasons)
    assert "on the CPU" in reasons
    assert "q5_k_m would read 5.4 GB" in reasons
    assert "published by Qwen as Qwen/Qwen3-8B-GGUF" in reasons
    assert "32,768" in reasons


def test_few_bits_come_with_a_warning() -> None:
    assert any("poorer" in r for r in chosen("qwen3:8b", host(5)).reasons)


def test_a_small_context_names_the_largest() -> None:
    plan = chosen("qwen3:14b", host(12))
    told = next(r for r in plan.reasons if "--context" in r)
    largest = int(told.partition("`--context ")[2].partition("`")[0])
    assert largest > plan.context_tokens
    assert chosen("qwen3:14b", host(12), context_tokens=largest, format=plan.format)


def test_the_2507_models_are_not_given_their_whole_context_unasked() -> None:
    plan = chosen("qwen3:4b-instruct-2507", host(64))
    assert plan.context_tokens == 32_768
    assert any("262,144" in r for r in plan.reasons)
    asked = chosen("qwen3:4b-instruct-2507", host(64), context_tokens=262_144)
    assert asked.context_tokens == 262_144
    assert not any("YaRN" in r for r in asked.reasons)


def test_the_pocket_models_context_is_its_own() -> None:
    names = [m.name for m in catalog.models()]
    if "pocket" not in names:
        pytest.skip("the pocket model has not been trained here")
    plan = chosen("pocket", host(2))
    assert plan.context_tokens == catalog.find("pocket").native_context_tokens
    assert plan.format == Q8


def test_a_mac_computes_on_its_gpu() -> None:
    plan = chosen("qwen3:8b", mac(32))
    layers = plan.model.architecture.num_hidden_layers
    assert plan.gpu_layers == layers + 1
    assert plan.format == Q8
    assert plan.memory_bytes("gpu") == 0, "unified memory is the host's"


def test_macos_keeps_a_third_for_itself() -> None:
    assert chosen("qwen3:14b", mac(16)).memory_bytes() <= 16 * GIB * 2 // 3


def test_up_does_not_count_on_a_gpu_wheel() -> None:
    machine = host(32, gpus=nvidia(1, 24))
    plan = chosen("qwen3:8b", machine)
    assert plan.gpu_layers == 0
    assert any("GPU is not used" in r for r in plan.reasons)
    best = fit.choose(catalog.find("qwen3:8b"), machine, Wishes(platform="llama.cpp"))
    assert best.gpu_layers == 37
    assert any("build for the GPU" in r for r in best.reasons)


def test_what_is_installed_and_best_for_the_hardware_is_taken() -> None:
    card = host(32, gpus=nvidia(1, 24))
    everything = ("vllm", "sglang", "mlx", "ollama", "lmstudio")
    assert chosen("qwen3:8b", card).platform == "llama.cpp"
    assert chosen("qwen3:8b", card, "ollama").platform == "ollama", "which uses the card"
    assert chosen("qwen3:8b", card, *everything).platform == "vllm"
    assert chosen("qwen3:8b", host(32), *everything).platform == "llama.cpp"
    assert chosen("qwen3:8b", mac(32), "lmstudio").platform == "llama.cpp"
    assert chosen("qwen3:8b", mac(32), *everything).platform == "mlx"
    assert chosen("qwen3:8b", card, "vllm", platform="auto").platform == "vllm"


def test_gpus_can_be_left_alone() -> None:
    card = host(64, gpus=nvidia(1, 24))
    assert chosen("qwen3:8b", card, "vllm", gpu=False).platform == "llama.cpp"
    plan = chosen("qwen3:8b", card, "vllm", gpu=False, platform="vllm")
    assert plan.gpus == 0
    assert plan.memory_bytes("gpu") == 0
    assert plan.memory_bytes("host") > 0


def test_what_is_not_installed_is_planned_where_nothing_else_can() -> None:
    plan = chosen("qwen3:8b", host(64), format=AWQ)
    assert plan.platform == "vllm"
    assert any("not installed" in r for r in plan.reasons)
    assert not any(
        "not installed" in r for r in chosen("qwen3:8b", host(64), "vllm", format=AWQ).reasons
    )


def test_a_card_that_is_too_small_for_the_preferred_platform() -> None:
    small = host(64, gpus=nvidia(1, 8))
    plan = chosen("qwen3:30b-a3b", small, "vllm")
    assert plan.platform == "llama.cpp"


@pytest.mark.parametrize(
    ("physical", "usable", "threads"),
    [(1, 1.0, 1), (2, 2.0, 2), (2, 4.0, 2), (4, 8.0, 3), (16, 32.0, 15), (16, 2.5, 2), (8, 0.5, 1),
     (None, 4.0, 3), (None, None, None)],
)  # fmt: skip
def test_threads(physical: int | None, usable: float | None, threads: int | None) -> None:
    cpu = Cpu(
        name=None,
        machine="x86_64",
        physical_cores=physical,
        logical_cores=None,
        usable_cores=usable,
    )
    assert fit.threads(cpu) == threads


def test_unknown_memory_is_not_judged() -> None:
    machine = replace(host(1), memory_total_bytes=None, memory_available_bytes=None)
    assert chosen("qwen3:32b", machine).context_tokens == 32_768


def test_a_container_limit_is_the_machine() -> None:
    machine = replace(host(64), memory_limit_bytes=8 * GIB, memory_available_bytes=8 * GIB)
    assert chosen("qwen3:8b", machine).memory_bytes() < 8 * GIB


# ----------------------------------------------------------------------------------------- wishes


def test_wishes_are_met_exactly() -> None:
    plan = chosen(
        "qwen3:4b", host(64), format=BF16, context_tokens=12_345, parallel=3, kv_cache_type="q8_0"
    )
    assert plan.format == BF16
    assert (plan.context_tokens, plan.parallel, plan.kv_cache_type) == (12_345, 3, "q8_0")
    kv = next(x for x in plan.memory if x.label == "KV cache")
    assert kv.size_bytes == memory.kv_bytes(plan.model.architecture, 12_345, "q8_0", 3)


def test_beyond_the_native_context_yarn_is_said_aloud() -> None:
    plan = chosen("qwen3:4b", host(64), context_tokens=65_536)
    assert any("YaRN" in r and "32,768" in r for r in plan.reasons)


def test_the_room_for_the_answer_needs_no_yarn() -> None:
    plan = chosen("qwen3:4b", host(64), context_tokens=40_960)
    assert not any("YaRN" in r for r in plan.reasons)


@pytest.mark.parametrize(("name", "most"), [("qwen3:8b", 131_072), ("qwen3:0.6b", 40_960)])
def test_more_context_than_there_can_be_is_refused(name: str, most: int) -> None:
    with pytest.raises(UsageError) as error:
        chosen(name, host(512), context_tokens=most + 1)
    assert f"{most:,}" in error.value.expected
    assert error.value.facts["max_context_tokens"] == most
    assert chosen(name, host(512), context_tokens=most).context_tokens == most


def test_a_platform_by_another_of_its_names() -> None:
    assert chosen("qwen3:0.6b", host(8), platform="llama-cpp").platform == "llama.cpp"


def test_an_unknown_platform() -> None:
    with pytest.raises(UsageError, match="llama\\.cpp"):
        chosen("qwen3:0.6b", host(8), platform="tensorrt")


def test_a_platform_that_is_not_driven() -> None:
    with pytest.raises(UsageError) as error:
        fit.choose(
            catalog.find("qwen3:0.6b"),
            host(8),
            Wishes(platform="lm-studio"),
            means=Means(platforms=("llama.cpp", "vllm")),
        )
    assert "not driven" in error.value.found
    assert "vllm" in error.value.expected


def test_a_format_that_the_platform_cannot_run() -> None:
    with pytest.raises(FormatUnavailable) as error:
        chosen("qwen3:8b", host(64), platform="llama.cpp", format=AWQ)
    assert "--format gguf:" in error.value.hint
    assert "`--platform vllm` runs safetensors:awq here" in error.value.hint
    assert error.value.facts["platforms_instead"] == ["vllm"]


def test_weights_in_parts_are_put_together_for_a_platform_that_takes_one_file() -> None:
    large = host(512)
    made = chosen("qwen3:235b-a22b", large, platform="ollama")
    assert made.format == Q4
    assert any("another 142 GB of the disk" in reason for reason in made.reasons)
    other = chosen("qwen3:235b-a22b", large, platform="llama.cpp")
    assert other.format == Q4
    assert not any("parts" in reason for reason in other.reasons)
    small = chosen("qwen3:8b", large, platform="ollama")
    assert not any("parts" in reason for reason in small.reasons)


def test_adapters_want_a_platform_that_tells_them_apart() -> None:
    machine = host(64)
    assert chosen("qwen3:8b", machine, "ollama", adapters=True).platform == "llama.cpp"
    with pytest.raises(UsageError) as error:
        chosen("qwen3:8b", machine, "ollama", platform="ollama", adapters=True)
    assert "change of adapter" in error.value.found
    assert "`llama.cpp`" in error.value.hint


def test_a_format_that_nothing_runs_here() -> None:
    machine = host(64)
    machine = replace(machine, cpu=replace(machine.cpu, instruction_sets=frozenset({"avx2"})))
    with pytest.raises(FormatUnavailable) as error:
        chosen("qwen3:8b", machine, format=Format("safetensors", "fp8"), platform="vllm")
    assert "AMX" in error.value.found
    assert "--format safetensors:bf16" in error.value.hint


def test_a_format_that_cannot_be_had() -> None:
    with pytest.raises(FormatUnavailable) as error:
        chosen("qwen3:8b", host(64), format=Format("gguf", "iq1_s"))
    assert "q4_k_m" in error.value.expected


def test_a_kv_cache_type_that_the_platform_has_not() -> None:
    with pytest.raises(UsageError, match="q8_0"):
        chosen("qwen3:8b", host(64), kv_cache_type="fp8")


# ----------------------------------------------------------------------------------- does not fit


def test_too_much_context_names_the_largest_that_fits() -> None:
    machine = host(16)
    with pytest.raises(DoesNotFit) as error:
        chosen("qwen3:8b", machine, format=Q8, context_tokens=131_072)
    largest = int(error.value.facts["largest_context_tokens"])
    assert f"--context {largest}" in error.value.hint
    assert chosen("qwen3:8b", machine, format=Q8, context_tokens=largest)
    with pytest.raises(DoesNotFit):
        chosen("qwen3:8b", machine, format=Q8, context_tokens=largest + 256)


def test_a_smaller_kv_cache_is_offered_only_where_it_helps() -> None:
    with pytest.raises(DoesNotFit) as error:
        chosen("qwen3:8b", host(16), format=Q8, context_tokens=60_000)
    assert "--kv-cache q8_0" in error.value.hint
    allowed = int(error.value.hint.partition("allows ")[2].replace(",", ""))
    assert chosen("qwen3:8b", host(16), format=Q8, context_tokens=allowed, kv_cache_type="q8_0")
    with pytest.raises(DoesNotFit) as error:
        chosen("qwen3:8b", host(12), context_tokens=131_072, format=Q8, kv_cache_type="q4_0")
    assert "--kv-cache" not in error.value.hint


def test_too_large_a_model_names_the_best_that_fits() -> None:
    machine = host(8)
    with pytest.raises(DoesNotFit) as error:
        chosen("qwen3:235b-a22b", machine)
    name = str(error.value.facts["largest_model"])
    assert name in error.value.hint
    assert name == "qwen3:8b"
    assert chosen(name, machine)
    assert "GiB needed" in error.value.found


def test_nothing_at_all_fits() -> None:
    with pytest.raises(DoesNotFit) as error:
        fit.choose(catalog.find("qwen3:0.6b"), host(0.3), Wishes())
    assert error.value.hint


# -------------------------------------------------------------------------------------- invariants

NAMES = [m.name for m in catalog.models()]


@settings(max_examples=60)
@given(
    name=st.sampled_from(NAMES),
    gib=st.floats(0.5, 600),
    free=st.floats(0.1, 1.0),
    format=st.none() | st.sampled_from([Q4, Q8, BF16]),
    context=st.none() | st.integers(256, 262_144),
    parallel=st.integers(1, 4),
    kv=st.sampled_from([None, "f16", "q8_0", "q4_0"]),
)
def test_a_plan_fits_or_there_is_none(
    name: str,
    gib: float,
    free: float,
    format: Format | None,
    context: int | None,
    parallel: int,
    kv: str | None,
) -> None:
    machine = host(gib, free_gib=gib * free)
    model = catalog.find(name)
    wishes = Wishes(
        format=format,
        context_tokens=context,
        parallel=parallel,
        kv_cache_type=kv,  # type: ignore[arg-type]
    )
    try:
        plan = fit.choose(model, machine, wishes)
    except (DoesNotFit, UsageError) as error:
        assert error.hint
        return
    room = budget(machine).host_bytes
    assert room is not None
    assert plan.memory_bytes() <= room
    assert plan.format == (format or plan.format)
    assert plan.context_tokens == (context or plan.context_tokens)
    if context is None:
        assert plan.context_tokens <= model.native_context_tokens
