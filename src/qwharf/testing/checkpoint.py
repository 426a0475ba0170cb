"""Synthetic checkpoints: the exact files, names and shapes of a Qwen3 model, with random weights.

They cost and weigh what the real ones do, so speed, memory and conversion can be measured without
a download. They talk nonsense.

Weights are quantiles of a normal distribution, looked up by 16 random bits each; the random
stream of a tensor depends on the seed and the tensor's name alone, so the bytes do not depend on
sharding. Norms are ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

from qwharf.errors import InvalidFile, StorageError, UsageError
from qwharf.formats.safetensors import SafetensorsWriter
from qwharf.formats.tensors import TensorSpec, checkpoint_tensors
from qwharf.testing.vocabulary import (
    TINY_ROWS,
    Vocabulary,
    to_json,
    tokenizer_config,
    tokenizer_json,
    vocabulary,
)
from qwharf.types import Architecture, Model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Dtype = Literal["bf16", "f16", "f32"]
Progress = Callable[[str, int, int | None], None]

SHARD_BYTES = 5_000_000_000
DEVIATION = 0.02
"""Standard deviation of the weights: Qwen3's ``initializer_range``."""
BLOCK_ELEMENTS = 1 << 22

TINY = Architecture(
    model_type="qwen3",
    num_hidden_layers=3,
    hidden_size=256,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    intermediate_size=512,
    vocab_size=TINY_ROWS,
    tie_word_embeddings=True,
    max_position_embeddings=2048,
)
"""A dense shape for tests; rows are multiples of 256, as K-quants want."""

TINY_MOE = replace(
    TINY,
    model_type="qwen3_moe",
    tie_word_embeddings=False,
    num_experts=16,
    num_experts_per_tok=2,
    moe_intermediate_size=256,
)
"""A mixture of experts for tests."""


@dataclass(frozen=True, slots=True)
class Written:
    """What :func:`write_synthetic_checkpoint` made."""

    folder: Path
    architecture: Architecture
    parameters: int
    weight_files: tuple[Path, ...]


def write_synthetic_checkpoint(
    arch_or_model: Architecture | Model,
    folder: Path,
    *,
    seed: int = 0,
    vocab: Vocabulary = "full",
    layers: int | None = None,
    dtype: Dtype = "bf16",
    lm_head: bool | None = None,
    chat_template: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> Written:
    """Write a checkpoint with random weights into ``folder``, in bounded memory.

    Args:
        arch_or_model: the shape.
        folder: made if needed; files of an earlier run are replaced.
        seed: the same seed gives the same bytes.
        vocab: ``full`` is Qwen's own tokenizer (needs the extra ``synth``); ``tiny`` one of a few
            hundred tokens, and as many embedding rows.
        layers: fewer (or more) layers than the shape has.
        dtype: of the matrices and norms.
        lm_head: whether to store the output matrix; ``None``: unless the embeddings are tied.
            The published 0.6B and 1.7B store it although they are tied.
        chat_template: its text; ``None``: the pocket model's, which is Qwen3's.
        shard_bytes: largest weight file.
        progress: ``(label, done_bytes, total_bytes)``.

    Raises:
        UsageError: no extra, no layers, or a vocabulary that does not fit the shape.
        InvalidFile: no chat template to be found.
        StorageError: the disk is full or closed to us.
    """
    arch = arch_or_model.architecture if isinstance(arch_or_model, Model) else arch_or_model
    template = _pocket_template() if chat_template is None else chat_template
    tokens = vocabulary(vocab)
    arch = _fitted(arch, tokens.size, vocab, layers)
    arch = replace(
        arch,
        bos_token_id=tokens.added_id("<|endoftext|>"),
        eos_token_id=tokens.added_id("<|im_end|>"),
    )
    texts = {
        "config.json": to_json(config_json(arch, dtype)),
        "generation_config.json": to_json(generation_config_json(arch)),
        "tokenizer.json": to_json(tokenizer_json(tokens)),
        "tokenizer_config.json": to_json(tokenizer_config(tokens, template)),
    }
    with _storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, "utf-8")
    specs = checkpoint_tensors(arch, lm_head=lm_head)
    with _storage_errors(folder):
        files = _write_weights(folder, specs, seed, dtype, shard_bytes, progress)
    counted = sum(s.elements for s in specs)
    return Written(folder, arch, counted, tuple(files))


@contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise StorageError(
            str(e.filename or folder),
            found=e.strerror or str(e),
            expected="room and permission to write",
            hint="free some space, or choose another folder",
        ) from e


def _fitted(arch: Architecture, used: int, vocab: Vocabulary, layers: int | None) -> Architecture:
    if vocab == "tiny":
        arch = replace(arch, vocab_size=TINY_ROWS)
    if layers is not None:
        if layers < 1:
            raise UsageError("layers", found=str(layers), expected="at least one")
        arch = replace(arch, num_hidden_layers=layers)
    if arch.vocab_size < used:
        raise UsageError(
            "vocab",
            found=f"{arch.vocab_size:,} embedding rows",
            expected=f"at least the {used:,} tokens of the {vocab} vocabulary",
            hint="use vocab='tiny' for shapes other than Qwen3's own",
        )
    return arch


def _pocket_template() -> str:
    """The chat template of the pocket model in this package."""
    import json

    from qwharf import catalog

    folder = Path(catalog.__file__).parent / "pocket"
    single = folder / "chat_template.jinja"
    try:
        if single.is_file():
            return single.read_text("utf-8")
        template = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))[
            "chat_template"
        ]
    except (OSError, ValueError, KeyError) as e:
        raise InvalidFile(
            str(folder),
            found=f"no chat template ({type(e).__name__})",
            expected="the pocket model's files",
            hint="reinstall qwharf, or pass chat_template",
        ) from e
    return str(template)


# ------------------------------------------------------------------------------------- configs


def config_json(arch: Architecture, dtype: Dtype = "bf16") -> dict[str, Any]:
    """``config.json`` as Qwen publishes it."""
    data: dict[str, Any] = {
        "architectures": ["Qwen3MoeForCausalLM" if arch.is_moe else "Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": arch.bos_token_id,
        "eos_token_id": arch.eos_token_id,
        "head_dim": arch.head_dim,
        "hidden_act": "silu",
        "hidden_size": arch.hidden_size,
        "initializer_range": DEVIATION,
        "intermediate_size": arch.intermediate_size,
        "max_position_embeddings": arch.max_position_embeddings,
        "max_window_layers": arch.num_hidden_layers,
        "model_type": arch.model_type,
        "num_attention_heads": arch.num_attention_heads,
        "num_hidden_layers": arch.num_hidden_layers,
        "num_key_value_heads": arch.num_key_value_heads,
        "rms_norm_eps": arch.rms_norm_eps,
        "rope_scaling": None,
        "rope_theta": arch.rope_theta,
        "sliding_window": None,
        "tie_word_embeddings": arch.tie_word_embeddings,
        "torch_dtype": {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}[dtype],
        "transformers_version": "4.51.0",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": arch.vocab_size,
    }
    if arch.yarn_factor is not None:
        data["rope_scaling"] = {
            "rope_type": "yarn",
            "factor": arch.yarn_factor,
            "original_max_position_embeddings": arch.yarn_original_context_tokens,
        }
    if arch.is_moe:
        data |= {
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "moe_intermediate_size": arch.moe_intermediate_size,
            "norm_topk_prob": True,
            "num_experts": arch.num_experts,
            "num_experts_per_tok": arch.num_experts_per_tok,
            "output_router_logits": False,
            "router_aux_loss_coef": 0.001,
        }
    return dict(sorted(data.items()))


def generation_config_json(arch: Architecture) -> dict[str, Any]:
    """``generation_config.json`` as Qwen publishes it."""
    return {
        "bos_token_id": arch.bos_token_id,
        "do_sample": True,
        "eos_token_id": [arch.eos_token_id, arch.bos_token_id],
        "pad_token_id": arch.bos_token_id,
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
        "transformers_version": "4.51.0",
    }


# ------------------------------------------------------------------------------------- weights


def _write_weights(
    folder: Path,
    specs: Sequence[TensorSpec],
    seed: int,
    dtype: Dtype,
    shard_bytes: int,
    progress: Progress | None,
) -> list[Path]:
    width = 4 if dtype == "f32" else 2
    shards = list(_shards(specs, width, shard_bytes))
    names = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = ["model.safetensors"]
    table = _quantiles(dtype)
    total = sum(s.elements for s in specs) * width
    done = 0
    for name, shard in zip(names, shards, strict=True):
        entries = [(s.name, dtype.upper(), s.shape) for s in shard]
        with SafetensorsWriter(folder / name, entries, {"format": "pt"}) as writer:
            for spec in shard:
                for block in _blocks(spec, seed, dtype, table):
                    writer.write(block.data.cast("B"))
                    done += block.nbytes
                if progress is not None:
                    progress(name, done, total)
    index = folder / "model.safetensors.index.json"
    if len(shards) > 1:
        where = {s.name: n for n, shard in zip(names, shards, strict=True) for s in shard}
        text = to_json({"metadata": {"total_size": total}, "weight_map": where})
        index.write_text(text, "utf-8")
    else:
        index.unlink(missing_ok=True)
    for stale in folder.glob("model*.safetensors"):
        if stale.name not in names:
            stale.unlink()
    return [folder / n for n in names]


def _shards(specs: Sequence[TensorSpec], width: int, limit: int) -> Iterator[list[TensorSpec]]:
    shard: list[TensorSpec] = []
    size = 0
    for spec in specs:
        if shard and size + spec.elements * width > limit:
            yield shard
            shard, size = [], 0
        shard.append(spec)
        size += spec.elements * width
    yield shard


def _quantiles(dtype: Dtype) -> NDArray[Any]:
    """65,536 equally likely values of a normal distribution."""
    import numpy as np

    normal = NormalDist(0.0, DEVIATION)
    values = np.array([normal.inv_cdf((n + 0.5) / 65536) for n in range(65536)], np.float32)
    return _cast(values, dtype)


def _cast(values: NDArray[np.float32], dtype: Dtype) -> NDArray[Any]:
    import numpy as np

    if dtype == "f32":
        return values
    if dtype == "f16":
        return values.astype(np.float16)
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> 16).astype(np.uint16)


def _blocks(
    spec: TensorSpec, seed: int, dtype: Dtype, table: NDArray[Any]
) -> Iterator[NDArray[Any]]:
    """The tensor's elements, a few million at a time."""
    import numpy as np

    if len(spec.shape) == 1:
        yield _cast(np.ones(spec.elements, np.float32), dtype)
        return
    digest = hashlib.sha256(f"{seed} {spec.name}".encode()).digest()
    stream = np.random.SFC64(np.random.SeedSequence(int.from_bytes(digest[:16], "little")))
    left = spec.elements
    while left:
        count = min(left, BLOCK_ELEMENTS)
        bits = stream.random_raw((count + 3) // 4)
        yield table[np.asarray(bits, "<u8").view("<u2")[:count]]
        left -= count
