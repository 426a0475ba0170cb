"""The family as data, against the published numbers, written out here once more."""

import copy
import tomllib
from pathlib import Path
from typing import Any

import pytest

from qwharf import catalog
from qwharf.catalog import data
from qwharf.catalog.data import CatalogueError, base_repositories, models, parse
from qwharf.formats.tensors import (
    active_parameter_count,
    checkpoint_tensors,
    expert_parameter_count,
    non_embedding_parameter_count,
    parameter_count,
)
from qwharf.quantize.sizes import file_size
from qwharf.types import Format, Sampling

# size: layers, hidden, query heads, KV heads, FFN, tied, parameters, without embeddings
ROWS: dict[str, tuple[int, int, int, int, int, bool, int, int]] = {
    "0.6b": (28, 1024, 16, 8, 3_072, True, 596_049_920, 440_467_456),
    "1.7b": (28, 2048, 16, 8, 6_144, True, 1_720_574_976, 1_409_410_048),
    "4b": (36, 2560, 32, 8, 9_728, True, 4_022_468_096, 3_633_511_936),
    "8b": (36, 4096, 32, 8, 12_288, False, 8_190_735_360, 6_946_075_648),
    "14b": (40, 5120, 40, 8, 17_408, False, 14_768_307_200, 13_212_482_560),
    "32b": (64, 5120, 64, 8, 25_600, False, 32_762_123_264, 31_206_298_624),
    "30b-a3b": (48, 2048, 32, 4, 6_144, False, 30_532_122_624, 29_909_792_768),
    "235b-a22b": (94, 4096, 64, 4, 12_288, False, 235_093_634_560, 233_848_974_848),
}
HYBRID = tuple(ROWS)
FAMILY = [m for m in models() if m.name != "pocket"]


def test_all_are_there() -> None:
    names = {m.name for m in FAMILY}
    updates = {f"qwen3:{s}-{k}-2507" for s in ("4b", "30b-a3b", "235b-a22b")
               for k in ("instruct", "thinking")}  # fmt: skip
    assert names == {f"qwen3:{s}" for s in HYBRID} | updates


@pytest.mark.parametrize("size", HYBRID)
def test_shape_and_parameters(size: str) -> None:
    a = catalog.find(f"qwen3:{size}").architecture
    layers, hidden, heads, kv, ffn, tied, total, inner = ROWS[size]
    assert a.num_hidden_layers == layers
    assert a.hidden_size == hidden
    assert (a.num_attention_heads, a.num_key_value_heads) == (heads, kv)
    assert a.intermediate_size == ffn
    assert a.tie_word_embeddings == tied
    assert (a.head_dim, a.vocab_size) == (128, 151_936)
    assert (a.max_position_embeddings, a.rope_theta, a.rms_norm_eps) == (40_960, 1e6, 1e-6)
    assert (a.bos_token_id, a.eos_token_id) == (151_643, 151_645)
    assert parameter_count(a) == total
    assert non_embedding_parameter_count(a) == inner


@pytest.mark.parametrize(
    ("size", "inner", "active", "active_inner", "experts"),
    [("30b-a3b", 768, 3_353_032_704, 2_730_702_848, 28_991_029_248),
     ("235b-a22b", 1_536, 22_190_763_520, 20_946_103_808, 227_096_395_776)],
)  # fmt: skip
def test_mixtures(size: str, inner: int, active: int, active_inner: int, experts: int) -> None:
    a = catalog.find(f"qwen3:{size}").architecture
    assert a.is_moe
    assert (a.num_experts, a.num_experts_per_tok, a.moe_intermediate_size) == (128, 8, inner)
    assert active_parameter_count(a) == active
    assert active - 2 * a.vocab_size * a.hidden_size == active_inner
    assert expert_parameter_count(a) == experts


@pytest.mark.parametrize(("size", "shown"), [("0.6b", 751_632_384), ("1.7b", 2_031_739_904)])
def test_the_hub_counts_a_stored_head_twice(size: str, shown: int) -> None:
    specs = checkpoint_tensors(catalog.find(f"qwen3:{size}").architecture, lm_head=True)
    assert sum(s.elements for s in specs) == shown


@pytest.mark.parametrize("size", HYBRID)
def test_hybrid_models(size: str) -> None:
    model = catalog.find(f"qwen3:{size}")
    assert model.title == f"Qwen3-{size.upper()}"
    assert model.thinking == "hybrid"
    assert model.license == "Apache-2.0"
    assert model.released == "2025-04-29"
    assert model.native_context_tokens == 32_768
    small = size in ("0.6b", "1.7b")
    assert model.max_context_tokens == (32_768 if small else 131_072)


@pytest.mark.parametrize(
    ("size", "kind", "released", "theta"),
    [
        ("4b", "instruct", "2025-08-06", 5e6),
        ("4b", "thinking", "2025-08-06", 5e6),
        ("30b-a3b", "instruct", "2025-07-30", 1e7),
        ("30b-a3b", "thinking", "2025-07-31", 1e7),
        ("235b-a22b", "instruct", "2025-07-21", 5e6),
        ("235b-a22b", "thinking", "2025-07-25", 5e6),
    ],
)
def test_the_updates_of_2507(size: str, kind: str, released: str, theta: float) -> None:
    model = catalog.find(f"qwen3:{size}-{kind}-2507")
    older = catalog.find(f"qwen3:{size}").architecture
    assert model.thinking == kind
    assert model.released == released
    assert model.native_context_tokens == model.max_context_tokens == 262_144
    assert model.architecture.max_position_embeddings == 262_144
    assert model.architecture.rope_theta == theta
    assert parameter_count(model.architecture) == parameter_count(older)
    formats = {str(r.format) for r in model.repositories if r.official}
    assert formats == {"safetensors:bf16", "safetensors:fp8"}


THINKING = Sampling(temperature=0.6, top_p=0.95, top_k=20, max_output_tokens=32_768)
PLAIN = Sampling(temperature=0.7, top_p=0.8, top_k=20, max_output_tokens=16_384)


def test_sampling() -> None:
    for model in FAMILY:
        if model.thinking == "hybrid":
            assert model.sampling == {"thinking": THINKING, "non-thinking": PLAIN}
        elif model.thinking == "instruct":
            assert model.sampling == {"non-thinking": PLAIN}
        else:
            long = Sampling(temperature=0.6, top_p=0.95, top_k=20, max_output_tokens=81_920)
            assert model.sampling == {"thinking": long}


# ----------------------------------------------------------------------------------- repositories

MLX = {"mlx:4bit", "mlx:6bit", "mlx:8bit", "mlx:bf16"}
FIVE = {"gguf:q4_k_m", "gguf:q5_0", "gguf:q5_k_m", "gguf:q6_k", "gguf:q8_0"}
PUBLISHED: dict[str, set[str]] = {
    "0.6b": {"bf16", "fp8", "gptq-int8", "gguf:q8_0"},
    "1.7b": {"bf16", "fp8", "gptq-int8", "gguf:q8_0"},
    "4b": {"bf16", "fp8", "awq"} | FIVE,
    "8b": {"bf16", "fp8", "awq"} | FIVE,
    "14b": {"bf16", "fp8", "awq"} | FIVE,
    "32b": {"bf16", "fp8", "awq"} | FIVE,
    "30b-a3b": {"bf16", "fp8", "gptq-int4"} | FIVE,
    "235b-a22b": {"bf16", "fp8", "gptq-int4"} | FIVE,
}


@pytest.mark.parametrize("size", HYBRID)
def test_the_matrix_of_official_repositories(size: str) -> None:
    found = {str(r.format).removeprefix("safetensors:")
             for r in catalog.find(f"qwen3:{size}").repositories}  # fmt: skip
    assert found == PUBLISHED[size] | MLX


def test_repository_names() -> None:
    ids = {str(r.format): r.repo_id for r in catalog.find("qwen3:30b-a3b").repositories}
    assert ids["safetensors:bf16"] == "Qwen/Qwen3-30B-A3B"
    assert ids["safetensors:fp8"] == "Qwen/Qwen3-30B-A3B-FP8"
    assert ids["safetensors:gptq-int4"] == "Qwen/Qwen3-30B-A3B-GPTQ-Int4"
    assert ids["gguf:q6_k"] == "Qwen/Qwen3-30B-A3B-GGUF"
    assert ids["mlx:4bit"] == "Qwen/Qwen3-30B-A3B-MLX-4bit"
    for model in FAMILY:
        for repository in model.repositories:
            owner, _, name = repository.repo_id.partition("/")
            assert repository.official == (owner == "Qwen")
            assert "/" not in name
            assert repository.hubs == (("hf", "modelscope") if repository.official else ("hf",))


def test_which_have_a_pretrained_repository() -> None:
    assert set(base_repositories()) == {
        f"qwen3-{s}-base" for s in HYBRID if s not in ("32b", "235b-a22b")
    }


OBSERVED = {
    ("0.6b", "q8_0"): 639_446_688,
    ("1.7b", "q8_0"): 1_834_426_016,
    ("4b", "q4_k_m"): 2_497_280_256,
    ("8b", "q4_k_m"): 5_027_783_488,
    ("8b", "q5_0"): 5_720_761_152,
    ("8b", "q5_k_m"): 5_851_112_224,
    ("8b", "q6_k"): 6_725_899_040,
    ("8b", "q8_0"): 8_709_518_112,
    ("14b", "q4_k_m"): 9_001_752_960,
    ("32b", "q4_k_m"): 19_762_149_024,
    ("30b-a3b", "q4_k_m"): 18_556_685_824,
}
DIGESTS = {
    ("0.6b", "q8_0"): "9465e63a22add5354d9bb4b99e90117043c7124007664907259bd16d043bb031",
    ("8b", "q4_k_m"): "d98cdcbd03e17ce47681435b5150e34c1417f50b5c0019dd560e4882c5745785",
    ("1.7b", "q8_0"): "061b54da",
    ("4b", "q4_k_m"): "7485fe6f",
    ("14b", "q4_k_m"): "500a8806",
    ("32b", "q4_k_m"): "efd97156",
    ("30b-a3b", "q4_k_m"): "0d003f66",
    ("30b-a3b", "q8_0"): "4ad960d1",
}


def test_observed_sizes_and_hashes_and_no_others() -> None:
    sizes, digests = {}, {}
    for size in HYBRID:
        for repository in catalog.find(f"qwen3:{size}").repositories:
            key = (size, repository.format.quantization)
            if repository.format.container != "gguf" or len(repository.files) != 1:
                continue
            (file,) = repository.files
            assert file.path == f"Qwen3-{size.upper()}-{key[1].upper()}.gguf"
            if file.size_bytes is not None:
                sizes[key] = file.size_bytes
            digest = file.sha256 or file.sha256_prefix
            if digest is not None:
                digests[key] = digest
                assert (file.sha256 is not None) == (len(digest) == 64)
    assert sizes == OBSERVED
    assert digests == DIGESTS


def test_sizes_follow_from_the_architecture() -> None:
    """All but the metadata does: half a kilobyte of it differs between models."""
    for model in FAMILY:
        for repository in model.repositories:
            for file in repository.files if len(repository.files) == 1 else ():
                size = file.size_bytes or file.predicted_size_bytes
                assert size is not None
                predicted = file_size(model.architecture, repository.format.quantization)
                assert predicted == pytest.approx(size, abs=30_000)


def test_the_parts_of_the_largest() -> None:
    wanted = Format("gguf", "q4_k_m")
    (repository,) = (r for r in catalog.find("qwen3:235b-a22b").repositories if r.format == wanted)
    assert [f.path for f in repository.files] == [
        f"Q4_K_M/Qwen3-235B-A22B-Q4_K_M-0000{n}-of-00005.gguf" for n in range(1, 6)
    ]
    assert sum(f.size_bytes or 0 for f in repository.files) == 142_154_074_176


# ----------------------------------------------------------------------------------------- checks


def family() -> dict[str, Any]:
    return tomllib.loads(Path(data.__file__).with_name("family.toml").read_text("utf-8"))


BREAKS: list[Any] = [
    lambda d: d.update(schema=2),
    lambda d: d["shape"]["8b"].update(parameters=8_000_000_000),
    lambda d: d["shape"]["8b"].update(hidden_size=4_224),
    lambda d: d["model"][0].update(colour="blue"),
    lambda d: d["model"][0].update(name="Qwen 3"),
    lambda d: d["model"][0].update(thinking="sometimes"),
    lambda d: d["model"][1].update(name="qwen3:0.6b"),
    lambda d: d["model"][1].update(aliases=["qwen3:0.6b"]),
    lambda d: d["model"][0].update(max_context_tokens=16_384),
    lambda d: d["model"][0]["gguf"]["q8_0"].update(sha256="xyz"),
    lambda d: d["model"][0]["gguf"]["q8_0"].update(seen="guessed"),
    lambda d: d["model"][0]["gguf"]["q8_0"].update(size=0),
    lambda d: d["model"][0]["gguf"]["q8_0"].update(colour="blue"),
    lambda d: d["sampling"]["hybrid"].pop("thinking"),
    lambda d: d["sampling"]["hybrid"]["thinking"].update(temperature=0.0),
]


@pytest.mark.parametrize("change", BREAKS)
def test_a_contradiction_is_noticed(change: Any) -> None:
    broken = copy.deepcopy(family())
    change(broken)
    with pytest.raises(CatalogueError):
        parse(broken)


def test_what_is_shipped_is_consistent() -> None:
    assert parse(family()) == tuple(FAMILY)
