"""The shipped checkpoint's files: what the Hub's Qwen3 checkpoints have, and small."""

import json
import math

from qwharf.catalog import pocket
from qwharf.catalog.pocket import FOLDER
from qwharf.formats.safetensors import read_safetensors
from qwharf.formats.tensors import checkpoint_tensors
from qwharf.formats.tokenizer import PATTERN, load_tokenizer
from qwharf.testing.vocabulary import ADDED

CONFIG = json.loads((FOLDER / "config.json").read_text("utf-8"))
TOKENIZER = json.loads((FOLDER / "tokenizer.json").read_text("utf-8"))
SETTINGS = json.loads((FOLDER / "tokenizer_config.json").read_text("utf-8"))
GENERATION = json.loads((FOLDER / "generation_config.json").read_text("utf-8"))
FIRST_ADDED = len(TOKENIZER["model"]["vocab"])


def test_it_ships_in_ten_megabytes() -> None:
    assert sum(f.stat().st_size for f in FOLDER.iterdir()) < 10_000_000


def test_config_is_hub_style() -> None:
    wanted = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "torch_dtype": "bfloat16",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "rope_scaling": None,
        "use_sliding_window": False,
    }
    assert {k: CONFIG[k] for k in wanted} == wanted
    assert CONFIG["head_dim"] in (64, 128)
    assert CONFIG["vocab_size"] == FIRST_ADDED + len(ADDED)
    assert CONFIG["bos_token_id"] == FIRST_ADDED
    assert CONFIG["eos_token_id"] == FIRST_ADDED + 2


def test_rows_suit_k_quants() -> None:
    model = pocket.model()
    assert model is not None
    for spec in checkpoint_tensors(model.architecture):
        if len(spec.shape) == 2:
            assert spec.shape[-1] % 256 == 0, spec.name


def test_weights_are_those_of_the_shape_in_bf16() -> None:
    model = pocket.model()
    assert model is not None
    found = read_safetensors(FOLDER / "model.safetensors").tensors
    wanted = {s.name: tuple(s.shape) for s in checkpoint_tensors(model.architecture)}
    assert {n: t.shape for n, t in found.items()} == wanted
    assert {t.dtype for t in found.values()} == {"BF16"}
    assert sum(math.prod(t.shape) for t in found.values()) < 5_000_000


def test_added_tokens_are_qwens_in_order() -> None:
    added = TOKENIZER["added_tokens"]
    assert [(t["content"], t["special"]) for t in added] == list(ADDED)
    assert [t["id"] for t in added] == list(range(FIRST_ADDED, FIRST_ADDED + len(ADDED)))


def test_text_is_cut_as_qwen_cuts_it() -> None:
    assert TOKENIZER["normalizer"] == {"type": "NFC"}
    steps = TOKENIZER["pre_tokenizer"]["pretokenizers"]
    assert steps[0]["pattern"]["Regex"] == PATTERN
    tokenizer = load_tokenizer(FOLDER)
    assert len(tokenizer.encode("2026")) == 4
    for text in ("Grüße", "你好世界", "🚀🌍", "a  b\n\n c\t", "it's", "\u0000"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_ends_and_presets() -> None:
    end, text_end = FIRST_ADDED + 2, FIRST_ADDED
    assert SETTINGS["eos_token"] == "<|im_end|>"
    assert SETTINGS["pad_token"] == "<|endoftext|>"
    assert SETTINGS["bos_token"] is None
    assert SETTINGS["add_bos_token"] is False
    assert {
        "bos_token_id": text_end,
        "do_sample": True,
        "eos_token_id": [end, text_end],
        "pad_token_id": text_end,
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
        "transformers_version": "4.51.0",
    } == GENERATION
