"""A LoRA adapter as PEFT saves it: ``adapter_config.json`` beside ``adapter_model.safetensors``.

For each matrix W that it changes it holds two thin ones, A of [rank, in] and B of [out, rank]; the
model then computes with W + scale * B A. Sources: peft ``LoraConfig`` and ``save_pretrained`` for
names and keys, vLLM ``lora/peft_helper.py`` for the keys that change what an adapter means.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwharf.errors import InvalidFile
from qwharf.formats.checkpoint import read_json
from qwharf.formats.opening import is_file
from qwharf.formats.safetensors import TensorEntry, read_safetensors
from qwharf.formats.tensors import Role, checkpoint_tensors
from qwharf.types import Architecture

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MAX_RANK = 512
"""The largest that vLLM takes (``config/lora.py``); usual ones are 8 to 64."""
DTYPES = ("F32", "F16", "BF16")
ROLES: frozenset[Role] = frozenset({"attention", "ffn", "expert"})
"""What adapters may change: embedding, head, router and norms are not served with one anywhere."""
MERGE = "merge it into the weights, and deploy those"

_OTHERWISE = {
    "use_dora": False, "lora_bias": False, "use_qalora": False, "fan_in_fan_out": False,
    "bias": "none", "modules_to_save": None, "layer_replication": None, "rank_pattern": None,
    "alpha_pattern": None, "alora_invocation_tokens": None, "use_bdlora": None,
    "target_parameters": None, "trainable_token_indices": None,
}  # fmt: skip
"""Keys with which an adapter is more than two matrices and one scale, and their plain value."""
_CHANGES_THE_BASE = ("pissa", "olora", "corda", "loftq")
"""Ways to begin training that change the base model's own weights as well."""
_TENSOR = re.compile(r"(?:base_model\.model\.)?(model\.layers\..+)\.lora_([AB])\.weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What is added to one matrix."""

    a: TensorEntry
    b: TensorEntry
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A read adapter; no tensor is read."""

    folder: Path
    rank: int
    alpha: float
    rank_stabilized: bool
    """Whether alpha is divided by the root of the rank (rsLoRA), not by the rank."""
    pairs: Mapping[str, Pair]
    """By the name of the matrix in a checkpoint."""

    @property
    def scale(self) -> float:
        """By which B A is multiplied."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)


def read_adapter(folder: Path, arch: Architecture) -> Adapter:
    """The adapter in ``folder``, which must suit a model of the shape ``arch``.

    Raises:
        InvalidFile: it is no LoRA adapter, more than that, or one for another model; or its weights
            are damaged, or a pickle.
        StorageError: it may not be read.
    """
    path = folder / CONFIG
    rank, alpha, stabilized = _numbers(path, read_json(path))
    weights = folder / WEIGHTS
    if not is_file(weights):
        raise InvalidFile(
            str(folder),
            found=f"no {WEIGHTS}",
            expected="the adapter's weights",
            hint="save it as safetensors: pickles are never loaded",
        )
    halves: dict[str, dict[str, TensorEntry]] = {}
    for name, entry in read_safetensors(weights).tensors.items():
        found = _TENSOR.fullmatch(name)
        if found is None:
            raise _wrong(weights, name, "matrices named …lora_A.weight and …lora_B.weight", MERGE)
        halves.setdefault(found[1] + ".weight", {})[found[2]] = entry
    if not halves:
        raise _wrong(weights, "no tensors", "the adapter's matrices", "save it again")
    known = {s.name: s for s in checkpoint_tensors(arch) if s.role in ROLES}
    pairs = {}
    for name, half in halves.items():
        spec = known.get(name)
        if spec is None:
            raise _wrong(
                weights,
                f"an addition to {name}",
                f"matrices of attention and feed-forward in {arch.num_hidden_layers} layers",
                f"use the adapter of this very model, or {MERGE}",
            )
        outputs, inputs = spec.shape
        for which, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
            has = half.get(which)
            if has is None or has.shape != shape or has.dtype not in DTYPES:
                found_it = "is missing" if has is None else f"{has.dtype} {list(has.shape)}"
                raise _wrong(
                    weights,
                    f"{name}: {which} {found_it}",
                    f"{list(shape)} in {', '.join(DTYPES)}, for this model and rank {rank}",
                    "use the adapter of this very model",
                )
        pairs[name] = Pair(a=half["A"], b=half["B"], role=spec.role)
    return Adapter(folder=folder, rank=rank, alpha=alpha, rank_stabilized=stabilized, pairs=pairs)


def _numbers(path: Path, config: Mapping[str, Any]) -> tuple[int, float, bool]:
    """Rank, alpha, and whether they are rank-stabilised."""
    kind: Any = config.get("peft_type")
    rank: Any = config.get("r")
    alpha: Any = config.get("lora_alpha")
    if kind != "LORA" or type(rank) is not int or type(alpha) not in (int, float):
        raise _wrong(
            path,
            f"peft_type {kind!r}, r {rank!r}, lora_alpha {alpha!r}",
            "a LoRA adapter in the layout of PEFT",
            f"save it with PEFT's save_pretrained, or {MERGE}",
        )
    if not 1 <= rank <= MAX_RANK:
        raise _wrong(path, f"rank {rank}", f"from 1 to {MAX_RANK}", MERGE)
    if not 0 < alpha <= 1e6:
        raise _wrong(path, f"lora_alpha {alpha}", "more than 0, and a sensible number", MERGE)
    for key, plain in _OTHERWISE.items():
        if config.get(key) and config[key] != plain:
            raise _wrong(path, f"{key} = {config[key]!r}", "low-rank matrices alone", MERGE)
    begun = config.get("init_lora_weights")
    if isinstance(begun, str) and begun.lower().startswith(_CHANGES_THE_BASE):
        raise _wrong(
            path,
            f"init_lora_weights = {begun!r}, which changes the base model too",
            "low-rank matrices alone",
            f"save it with path_initial_model_for_weight_conversion, or {MERGE}",
        )
    return rank, float(alpha), bool(config.get("use_rslora"))


def _wrong(path: Path, found: str, expected: str, hint: str) -> InvalidFile:
    return InvalidFile(str(path), found=found[:200], expected=expected, hint=hint)
