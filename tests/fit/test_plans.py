"""Everything that fits: every platform, mode and order."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwharf import catalog, compatibility, fit, memory
from qwharf.artifacts.convert import can_convert
from qwharf.errors import DoesNotFit, FormatUnavailable, UsageError
from qwharf.fit import Engine, Means, Wishes
from qwharf.fit.budget import GPU_HEADROOM_BYTES
from qwharf.fit.placing import Site, largest, most
from qwharf.fit.ranking import QUALITY, quality
from qwharf.fit.rules import FIDELITY, MAKEABLE, OFFERED, fidelity, formats_of, origin
from qwharf.fit.search import search
from qwharf.formats.names import FORMATS
from qwharf.types import Format, Hardware, Model, Plan

from .machines import GIB, host, mac, nvidia

FP8, BF16, AWQ = (Format("safetensors", q) for q in ("fp8", "bf16", "awq"))
Q4 = Format("gguf", "q4_k_m")


def everything(machine: Hardware, **wishes: object) -> tuple[Plan, ...]:
    return fit.plans(catalog.models(), machine, Wishes(**wishes))  # type: ignore[arg-type]


def best(name: str, machine: Hardware, **wishes: object) -> Plan:
    return fit.choose(catalog.find(name), machine, Wishes(**wishes))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------- data


def test_what_can_be_made_is_what_the_converter_makes() -> None:
    assert {f for f in FORMATS if f == BF16 or can_convert(BF16, f)} == MAKEABLE


def test_every_format_has_a_rank_and_every_rank_a_format() -> None:
    quantizations = {f.quantization for f in FORMATS}
    assert set(FIDELITY) <= quantizations
    low = {f.quantization for f in FORMATS if fidelity(f) == 0} - {"compressed-tensors"}
    assert all(q.startswith(("iq1", "iq2", "q2", "iq3_xxs", "2bit")) for q in low)


def test_what_is_offered_can_be_made() -> None:
    assert set(OFFERED) <= MAKEABLE


def test_quality_is_known_for_every_shape_and_grows_with_size() -> None:
    assert {memory.parameter_count(m.architecture) for m in catalog.models()} >= set(QUALITY)
    sizes = ["0.6b", "1.7b", "4b", "8b", "14b", "30b-a3b", "32b", "235b-a22b"]
    scores = [quality(catalog.find(f"qwen3:{s}").architecture) for s in sizes]
    assert scores == sorted(scores)


def test_a_pruned_shape_lies_between_its_neighbours() -> None:
    whole = catalog.find("qwen3:8b").architecture
    score = quality(replace(whole, num_hidden_layers=28))
    assert quality(catalog.find("qwen3:4b").architecture) < score < quality(whole)


# ------------------------------------------------------------------------------------------- order


def test_the_best_model_comes_first_and_its_plans_together() -> None:
    names = [p.model.name for p in everything(host(24))]
    groups = [n for i, n in enumerate(names) if i == 0 or names[i - 1] != n]
    assert len(groups) == len(set(groups))
    assert groups[0].startswith("qwen3:30b-a3b"), "a mixture is the best on a processor"
    assert groups.index("qwen3:8b") < groups.index("qwen3:4b") < groups.index("qwen3:0.6b")
    assert groups.index("qwen3:0.6b") < groups.index("qwen3:14b"), "which is slow there"


def test_the_first_plan_of_each_model_is_what_up_would_take() -> None:
    machine = host(24)
    seen: set[str] = set()
    for plan in everything(machine):
        if plan.model.name in seen:
            continue
        seen.add(plan.model.name)
        choice = fit.choose(plan.model, machine, Wishes())
        assert (plan.format, plan.platform) == (choice.format, choice.platform)
        assert plan.context_tokens >= choice.context_tokens


@pytest.mark.parametrize(
    "machine",
    [host(24), mac(32), host(64, gpus=nvidia(2, 24, (8, 6)))],
    ids=["no card", "mac", "two cards"],
)
def test_the_short_list_is_the_head_of_the_long_one(machine: Hardware) -> None:
    short = fit.plans(catalog.models(), machine, Wishes(), every=False)
    first: dict[str, Plan] = {}
    for plan in everything(machine):
        first.setdefault(plan.model.name, plan)
    assert {p.model.name: p for p in short} == first


class Asked(dict[str, Engine]):
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__({"llama.cpp": Engine()})
        self.names: set[str] = set()

    def __contains__(self, name: object) -> bool:
        self.names.add(str(name))
        return super().__contains__(name)


def test_on_a_processor_nobody_else_is_asked_for() -> None:
    """Looking whether services are there takes time, and would not change the plan."""
    installed = Asked()
    fit.plans(catalog.models(), host(24), Wishes(), Means(installed=installed), every=False)
    assert installed.names == {"llama.cpp"}


def test_newer_ones_come_first_among_equals() -> None:
    names = [p.model.name for p in everything(host(24))]
    assert names.index("qwen3:4b-instruct-2507") < names.index("qwen3:4b")


def test_every_plan_says_where_it_runs() -> None:
    for machine in (host(24), mac(64), host(64, gpus=nvidia(2, 24, (8, 6)))):
        for plan in everything(machine):
            assert plan.reasons[0]
            assert plan.memory


# ------------------------------------------------------------------------------------- invariants


def room(machine: Hardware) -> int:
    from qwharf.fit.budget import budget

    return budget(machine).host_bytes or 0


@pytest.mark.parametrize(
    "machine",
    [host(4), host(24), host(700), mac(16), mac(128), host(16, gpus=nvidia(1, 8, (8, 9))),
     host(64, gpus=nvidia(1, 24, (7, 5))), host(512, gpus=nvidia(8, 80))],
    ids=["4", "24", "700", "mac 16", "mac 128", "8 GB card", "Turing", "8 x H100"],
)  # fmt: skip
def test_all_of_them_fit_and_none_is_beyond_its_native_context(machine: Hardware) -> None:
    plans = everything(machine)
    assert plans
    for plan in plans:
        assert plan.context_tokens <= plan.model.native_context_tokens
        assert plan.memory_bytes("host") <= room(machine)
        free = sum(g.memory_free_bytes or 0 for g in machine.gpus)
        assert plan.memory_bytes("gpu") <= free
        assert compatibility.runs_anywhere(
            plan.platform, plan.format, moe=plan.model.architecture.is_moe
        )
        assert origin(plan.model, plan.format)


@settings(max_examples=25)
@given(name=st.sampled_from(["qwen3:0.6b", "qwen3:8b", "qwen3:30b-a3b"]), gib=st.floats(2, 48))
def test_the_largest_context_is_the_largest(name: str, gib: float) -> None:
    machine = host(gib)
    model = catalog.find(name)
    for plan in fit.plans([model], machine, Wishes(platform="llama.cpp", format=Q4)):
        if plan.context_tokens == model.native_context_tokens:
            continue
        assert plan.context_tokens % 256 == 0
        more = Wishes(platform="llama.cpp", format=Q4, context_tokens=plan.context_tokens + 256)
        assert fit.plans([model], machine, more) == ()


@given(st.integers(0, 5_000), st.integers(1, 5_000))
def test_bisection_finds_the_edge(edge: int, limit: int) -> None:
    assert most(lambda n: n <= edge, limit) == min(edge, limit)
    found = largest(lambda n: n <= edge, limit)
    expected = limit if limit <= edge else edge // 256 * 256 or None
    assert found == expected


def test_more_requests_at_once_leave_less_context() -> None:
    one = everything(host(16), platform="llama.cpp", format=Q4)
    four = everything(host(16), platform="llama.cpp", format=Q4, parallel=4)
    contexts = {p.model.name: p.context_tokens for p in one}
    assert four
    assert all(p.context_tokens <= contexts[p.model.name] for p in four)
    assert any(p.context_tokens < contexts[p.model.name] for p in four)


def test_a_context_asked_for_is_had_by_all() -> None:
    plans = everything(host(48), context_tokens=100_000)
    assert plans
    assert {p.context_tokens for p in plans} == {100_000}
    assert all(fit.most_context(p.model) >= 100_000 for p in plans)
    # YaRN cannot be switched on there, but the 2507 models need none.
    assert all("2507" in p.model.name for p in plans if p.platform == "ollama")


def test_an_unknown_platform_is_no_empty_list() -> None:
    with pytest.raises(UsageError):
        everything(host(24), platform="tensorrt")


# ------------------------------------------------------------------------------- GPUs, llama.cpp


def site(model: Model, machine: Hardware, format: Format = Q4, platform: str = "llama.cpp") -> Site:
    return search(machine, Wishes(), Means()).site(model, platform, format)


def test_experts_stay_on_the_host_in_as_few_layers_as_possible() -> None:
    machine = host(64, gpus=nvidia(1, 12, (8, 9)))
    plan = best("qwen3:30b-a3b", machine, platform="llama.cpp", format=Q4)
    layers = plan.model.architecture.num_hidden_layers
    assert plan.gpu_layers == layers + 1
    assert 0 < plan.cpu_moe_layers < layers
    gpu_room = 12 * GIB - GPU_HEADROOM_BYTES
    assert plan.memory_bytes("gpu") <= gpu_room
    experts = memory.expert_bytes_by_layer(plan.model.architecture, Q4)
    # One layer's experts more would not fit beside the rest.
    assert plan.memory_bytes("gpu") + experts[plan.cpu_moe_layers - 1] > gpu_room


def test_a_dense_model_is_split_by_layers() -> None:
    machine = host(64, gpus=nvidia(1, 12, (8, 9)))
    plan = best("qwen3:32b", machine, platform="llama.cpp", format=Q4, context_tokens=8_192)
    layers = plan.model.architecture.num_hidden_layers
    assert 0 < plan.gpu_layers < layers
    assert plan.memory_bytes("gpu") <= 12 * GIB - GPU_HEADROOM_BYTES
    per_layer = max(memory.layer_bytes(plan.model.architecture, Q4))
    assert plan.memory_bytes("gpu") + 2 * per_layer > 12 * GIB - GPU_HEADROOM_BYTES


def test_the_split_loses_and_doubles_nothing() -> None:
    model = catalog.find("qwen3:32b")
    machine = host(64, gpus=nvidia(1, 12, (8, 9)))
    placed = site(model, machine).place("layers on both", 8_192)
    assert placed is not None
    parts = sum(x.size_bytes for x in placed.lines if x.label.startswith("weights"))
    assert parts == memory.weight_bytes(model.architecture, Q4)


def test_a_second_card_is_used_only_when_needed() -> None:
    machine = host(64, gpus=nvidia(2, 24, (8, 6)))
    small = site(catalog.find("qwen3:8b"), machine).place("gpu", 32_768)
    large = site(catalog.find("qwen3:32b"), machine).place("gpu", 32_768)
    assert small is not None
    assert small.gpus == 1
    assert large is not None
    assert large.gpus == 2
    buffers = [x for x in large.lines if x.label == "GPU context"]
    assert buffers[0].size_bytes == 2 * memory.llama_cpp.CUDA_CONTEXT_BYTES


def test_speed_is_told_only_where_bandwidth_is_known() -> None:
    fast = nvidia(1, 24, (8, 9), bandwidth_bytes_per_second=1.008e12)
    assert any("tokens/s" in r for r in best("qwen3:8b", host(64, gpus=fast)).reasons)
    unknown = nvidia(1, 24, (8, 9))
    assert not any("tokens/s" in r for r in best("qwen3:8b", host(64, gpus=unknown)).reasons)
    assert not any("tokens/s" in r for r in best("qwen3:4b", host(64)).reasons)


# ---------------------------------------------------------------------------------- vLLM, SGLang


def test_tensor_parallelism_takes_as_few_cards_as_hold_it() -> None:
    machine = host(512, gpus=nvidia(2, 48))
    both = best("qwen3:32b", machine, platform="vllm", format=BF16)
    assert both.context_tokens == 32_768
    assert "2 GPUs" in both.reasons[0]
    alone = best("qwen3:32b", machine, platform="vllm", format=AWQ)
    assert "2 GPUs" not in alone.reasons[0]


def test_block_fp8_experts_that_cannot_be_cut_are_kept_whole() -> None:
    """768 wide experts leave whole blocks of 128 on two cards, not on four."""
    model = catalog.find("qwen3:30b-a3b")
    cards = host(512, gpus=nvidia(8, 24))
    where = site(model, cards, FP8, "vllm")
    assert list(where.tensor_parallel_sizes()) == [1, 2, 4, 8]
    assert [where.experts_apart(n) for n in (1, 2, 4, 8)] == [False, False, True, True]
    odd = replace(model, architecture=replace(model.architecture, num_experts=126))
    assert sizes(odd, cards, FP8) == [1, 2]
    assert not site(model, cards, BF16, "vllm").experts_apart(4)


def test_dense_block_fp8_is_cut_into_whole_blocks() -> None:
    """9,728 are 76 blocks: shared by four cards, not by eight."""
    model = catalog.find("qwen3:4b")
    cards = host(512, gpus=nvidia(8, 24))
    assert sizes(model, cards, FP8) == sizes(model, cards, AWQ) == [1, 2, 4]
    assert sizes(model, cards, BF16) == [1, 2, 4, 8]


def sizes(model: Model, machine: Hardware, format: Format = BF16) -> list[int]:
    return list(site(model, machine, format, "vllm").tensor_parallel_sizes())


def test_heads_must_be_divisible() -> None:
    cards = host(64, gpus=nvidia(8, 24))
    assert sizes(catalog.find("qwen3:14b"), cards) == [1, 2, 4, 8]
    odd = replace(catalog.find("qwen3:14b").architecture, num_attention_heads=20)
    model = replace(catalog.find("qwen3:14b"), architecture=odd)
    assert sizes(model, cards) == [1, 2, 4]


def test_slower_generations_are_told() -> None:
    plan = best("qwen3:8b", host(64, gpus=nvidia(1, 24, (8, 6))), platform="vllm", format=FP8)
    assert any("unpacked" in r for r in plan.reasons)


def test_vllm_needs_linux() -> None:
    windows = host(64, gpus=nvidia(1, 24), system="Windows")
    with pytest.raises(FormatUnavailable) as error:
        best("qwen3:8b", windows, platform="vllm")
    assert "Linux only" in error.value.found
    assert "`--platform llama.cpp`" in error.value.hint


def test_what_does_not_fit_on_the_cards() -> None:
    with pytest.raises(DoesNotFit) as error:
        best("qwen3:235b-a22b", host(64, gpus=nvidia(1, 24, (8, 9))), platform="vllm")
    assert "24.0 GiB" in error.value.expected


# ---------------------------------------------------------------------------------------- origins


def test_the_formats_of_a_model() -> None:
    formats = [str(f) for f in formats_of(catalog.find("qwen3:0.6b"))]
    assert "safetensors:gptq-int8" in formats
    assert "safetensors:awq" not in formats
    assert "gguf:q4_k_m" in formats, "which is made here"
    made = origin(catalog.find("qwen3:0.6b"), Q4)
    assert made is not None
    assert made.startswith("made here")


def test_mlx_on_a_mac() -> None:
    plan = best("qwen3:8b", mac(32), platform="mlx", format=Format("mlx", "4bit"))
    assert plan.memory_bytes() < 11 * GIB
    assert plan.threads is None
