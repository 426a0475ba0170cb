"""Find the matrices of a model among the tensors of a checkpoint.

The names and shapes that a Qwen3 must have are known; each is looked for in every form in which it
may be stored. Bits and groups follow from the stored shapes, and are held against them, so a
configuration that lies cannot lead astray.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwharf.artifacts.matrices import (
    Awq,
    BlockFp8,
    Gptq,
    Matrix,
    Mlx,
    Packed,
    Plain,
    Scaled,
    compressed_words,
)
from qwharf.artifacts.positioned import Region
from qwharf.errors import FormatUnavailable, InvalidFile
from qwharf.formats.checkpoint import Checkpoint
from qwharf.formats.safetensors import TensorEntry
from qwharf.formats.tensors import TensorSpec, checkpoint_tensors
from qwharf.formats.weights import mlx

FLOATS = ("BF16", "F16", "F32")
REFETCH = "get the checkpoint again; it is incomplete or belongs to another model"
SPARE = re.compile(
    r".*\.rotary_emb\.inv_freq|.*\.(input_scale|output_scale|k_scale|v_scale|q_scale)"
)
"""Computed rather than learned, or about activations: no part of the weights."""


def find_matrices(checkpoint: Checkpoint) -> dict[str, Matrix]:
    """All matrices of the model, by the names of :func:`checkpoint_tensors`.

    Raises:
        InvalidFile: one is missing or of another shape, or there are others; names the tensor.
        FormatUnavailable: weights of a kind that is not read here.
    """
    finder = _Finder(checkpoint)
    arch = checkpoint.architecture
    specs = checkpoint_tensors(arch, lm_head=not arch.tie_word_embeddings)
    matrices = {spec.name: finder.find(spec) for spec in specs}
    if arch.tie_word_embeddings:
        finder.ignore("lm_head")  # the 0.6B and 1.7B store a copy of the embedding
    finder.refuse_extra()
    return matrices


def find_layers(checkpoint: Checkpoint) -> dict[str, Matrix]:
    """The matrices of all decoder layers, which may be all there is, by the same names.

    Raises:
        InvalidFile: one is missing or of another shape; names the tensor.
        FormatUnavailable: weights of a kind that is not read here.
    """
    finder = _Finder(checkpoint)
    specs = checkpoint_tensors(checkpoint.architecture)
    return {s.name: finder.find(s) for s in specs if s.name.startswith("model.layers.")}


class _Finder:
    """Looks matrices up in a checkpoint and remembers which tensors they are made of."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.tensors = checkpoint.tensors
        self.used: set[str] = set()
        quant = checkpoint.config.get("quantization_config")
        self.quant: Mapping[str, Any] = quant if isinstance(quant, Mapping) else {}
        self.method = str(self.quant.get("quant_method", ""))

    def find(self, spec: TensorSpec) -> Matrix:
        module = spec.name.removesuffix(".weight")
        shape = (1, spec.shape[0]) if len(spec.shape) == 1 else (spec.shape[0], spec.shape[1])
        if f"{module}.qweight" in self.tensors:
            return self.gptq(module, shape) if self.method == "gptq" else self.awq(module, shape)
        if f"{module}.weight_packed" in self.tensors:
            return self.packed(module, shape)
        if spec.name in self.tensors or spec.role != "expert":
            return self.single(module, spec.name, shape)
        return self.expert(module, shape)

    def single(self, module: str, name: str, shape: tuple[int, int]) -> Matrix:
        entry = self.entry(name)[1]
        if entry.dtype in FLOATS:
            return Plain(self.region(name, shape))
        if entry.dtype == "U32" and f"{module}.scales" in self.tensors:
            return self.mlx(module, shape, None)
        if entry.dtype == "F8_E4M3" and f"{module}.weight_scale_inv" in self.tensors:
            return self.block_fp8(module, shape)
        if entry.dtype in ("F8_E4M3", "I8") and f"{module}.weight_scale" in self.tensors:
            return self.scaled(module, shape)
        raise self.unknown(name, f"{entry.dtype} without scales that belong to it")

    def block_fp8(self, module: str, shape: tuple[int, int]) -> Matrix:
        size = self.quant.get("weight_block_size", [128, 128])
        good = isinstance(size, list) and len(size) == 2 and all(type(n) is int for n in size)
        if not good or not all(0 < n <= 1 << 20 for n in size):
            raise self.wrong(
                "config.json", f"weight_block_size = {str(size)[:60]}", "two sizes: [128, 128]"
            )
        scales = (-(-shape[0] // size[0]), -(-shape[1] // size[1]))
        return BlockFp8(
            self.region(f"{module}.weight", shape),
            self.floats(f"{module}.weight_scale_inv", scales),
            (size[0], size[1]),
        )

    def scaled(self, module: str, shape: tuple[int, int]) -> Matrix:
        name = f"{module}.weight_scale"
        count = math.prod(self.entry(name)[1].shape)
        if count not in (1, shape[0]):
            raise self.wrong(name, f"{count} scales", f"1 or {shape[0]}, one per output")
        return Scaled(self.region(f"{module}.weight", shape), self.floats(name, (count, 1)))

    def packed(self, module: str, shape: tuple[int, int]) -> Matrix:
        rows, columns = shape
        name = f"{module}.weight_packed"
        words = self.entry(name)[1].shape[-1:]
        bits = words[0] * 32 // columns if words else 0
        if not 1 <= bits <= 8 or compressed_words(columns, bits) != words[0]:
            raise self.wrong(
                name, f"{list(words)} words a row", f"{columns} numbers of 1 to 8 bits"
            )
        self.ignore_if_there(f"{module}.weight_shape")
        scale = f"{module}.weight_scale"
        entry = self.entry(scale)[1]
        groups = entry.shape[1] if len(entry.shape) == 2 else 1
        if groups < 1 or columns % groups:
            raise self.wrong(scale, f"{groups} groups", f"groups that divide {columns}")
        zero = f"{module}.weight_zero_point"
        index = f"{module}.weight_g_idx"
        return Packed(
            self.region(name, (rows, words[0]), "I32"),
            self.floats(scale, (rows, groups)),
            bits,
            columns,
            self.region(zero, (compressed_words(rows, bits), groups), "I32")
            if zero in self.tensors
            else None,
            self.region(index, (1, columns), "I32") if index in self.tensors else None,
        )

    def awq(self, module: str, shape: tuple[int, int]) -> Matrix:
        outputs, inputs = shape
        version = str(self.quant.get("version", "gemm")).lower()
        if self.method not in ("awq", "") or version != "gemm":
            raise self.unknown(f"{module}.qweight", f"{self.method} of version {version}")
        if outputs % 8:
            raise self.wrong(f"{module}.qweight", f"{outputs} outputs", "a multiple of 8")
        scale, zero = f"{module}.scales", f"{module}.qzeros"
        groups = self.groups(scale, inputs)
        return Awq(
            self.region(f"{module}.qweight", (inputs, outputs // 8), "I32"),
            self.floats(scale, (groups, outputs)),
            self.region(zero, (groups, outputs // 8), "I32") if zero in self.tensors else None,
        )

    def gptq(self, module: str, shape: tuple[int, int]) -> Matrix:
        outputs, inputs = shape
        form = str(self.quant.get("checkpoint_format", "gptq")).lower()
        if form not in ("gptq", "gptq_v2"):
            raise self.unknown(f"{module}.qweight", f"GPTQ stored as {form}")
        name = f"{module}.qweight"
        words = (self.entry(name)[1].shape or (0,))[0]
        bits = words * 32 // inputs
        if bits not in (2, 4, 8) or words * 32 != bits * inputs or outputs * bits % 32:
            raise self.wrong(name, f"{words} words for {inputs} inputs", "2, 4 or 8 bits")
        scale, index = f"{module}.scales", f"{module}.g_idx"
        entry = self.entry(scale)[1]
        groups = entry.shape[0] if entry.shape else 0
        if not 0 < groups <= inputs:
            raise self.wrong(scale, f"{groups} groups", f"1 to {inputs}")
        return Gptq(
            self.region(name, (words, outputs), "I32"),
            self.floats(scale, (groups, outputs)),
            self.region(f"{module}.qzeros", (groups, outputs * bits // 32), "I32"),
            self.region(index, (1, inputs), "I32") if index in self.tensors else None,
            bits,
            2 if form == "gptq_v2" else 1,
        )

    def groups(self, name: str, inputs: int) -> int:
        shape = self.entry(name)[1].shape
        if len(shape) != 2 or shape[0] < 1 or inputs % shape[0]:
            raise self.wrong(name, f"shape {list(shape)}", f"groups that divide {inputs} inputs")
        return shape[0]

    def mlx(self, module: str, shape: tuple[int, int], stacked: tuple[int, int] | None) -> Matrix:
        """``stacked``: which of how many experts in one tensor."""
        rows, columns = shape
        name = f"{module}.weight"
        words = self.entry(name)[1].shape[-1:]
        bits = words[0] * 32 // columns if words else 0
        if bits not in mlx.BITS or words[0] * 32 != bits * columns:
            raise self.wrong(name, f"{list(words)} words a row", f"{columns} numbers of some bits")
        scale = f"{module}.scales"
        groups = (self.entry(scale)[1].shape or (0,))[-1]
        if groups < 1 or columns % groups:
            raise self.wrong(scale, f"{groups} groups", f"groups that divide {columns}")
        return Mlx(
            self.region(name, (rows, words[0]), "U32", stacked),
            self.floats(scale, (rows, groups), stacked),
            self.floats(f"{module}.biases", (rows, groups), stacked),
            bits,
        )

    def expert(self, module: str, shape: tuple[int, int]) -> Matrix:
        """One of the experts that are stored stacked, by MLX or by transformers 5."""
        found = re.fullmatch(r"(.*\.mlp)\.experts\.(\d+)\.(gate|up|down)_proj", module)
        if found is None:
            raise ValueError(f"{module} is no expert")
        mlp, number, kind = found[1], int(found[2]), found[3]
        count = self.checkpoint.architecture.num_experts
        switch = f"{mlp}.switch_mlp.{kind}_proj"
        if f"{switch}.scales" in self.tensors:
            return self.mlx(switch, shape, (number, count))
        if f"{switch}.weight" in self.tensors:
            return Plain(self.floats(f"{switch}.weight", shape, (number, count)))
        stem = f"{mlp}.experts.{'down_proj' if kind == 'down' else 'gate_up_proj'}"
        name = next((n for n in (stem, f"{stem}.weight") if n in self.tensors), None)
        if name is None:
            raise self.missing(f"{module}.weight")
        if kind == "down":
            return Plain(self.floats(name, shape, (number, count)))
        part = 2 * number + (kind == "up")  # gate and up lie one after the other
        halves = (count, 2 * shape[0], shape[1])
        return Plain(self.floats(name, shape, (part, 2 * count), halves))

    # ---------------------------------------------------------------------------- tensors

    def entry(self, name: str) -> tuple[Path, TensorEntry]:
        found = self.tensors.get(name)
        if found is None:
            raise self.missing(name)
        return found

    def region(
        self,
        name: str,
        shape: tuple[int, int],
        dtype: str | None = None,
        stacked: tuple[int, int] | None = None,
        stored: tuple[int, ...] | None = None,
    ) -> Region:
        """The tensor ``name``, which must be of ``shape``; of a stack, the one part asked for."""
        path, entry = self.entry(name)
        wanted = stored or (shape if stacked is None else (stacked[1], *shape))
        squeezed = tuple(n for n in wanted if n != 1)
        if entry.shape != wanted and tuple(n for n in entry.shape if n != 1) != squeezed:
            raise self.wrong(name, f"shape {list(entry.shape)}", f"{list(wanted)}, by config.json")
        if dtype is not None and entry.dtype != dtype:
            raise self.wrong(name, f"dtype {entry.dtype}", dtype)
        if dtype is None and entry.dtype not in (*FLOATS, "F8_E4M3", "I8"):
            raise self.unknown(name, entry.dtype)
        self.used.add(name)
        offset = entry.offset
        if stacked is not None:
            offset += stacked[0] * (entry.size_bytes // stacked[1])
        return Region(name, path, offset, entry.dtype, shape)

    def floats(
        self,
        name: str,
        shape: tuple[int, int],
        stacked: tuple[int, int] | None = None,
        stored: tuple[int, ...] | None = None,
    ) -> Region:
        region = self.region(name, shape, None, stacked, stored)
        if region.dtype not in FLOATS:
            raise self.wrong(name, f"dtype {region.dtype}", " or ".join(FLOATS))
        return region

    def ignore_if_there(self, name: str) -> None:
        self.used.add(name)

    def ignore(self, module: str) -> None:
        self.used.update(n for n in self.tensors if n.startswith(module + "."))

    def refuse_extra(self) -> None:
        extra = [n for n in self.tensors if n not in self.used and not SPARE.fullmatch(n)]
        if extra:
            raise InvalidFile(
                str(self.tensors[extra[0]][0]),
                found=f"tensor {extra[0]}" + (f" and {len(extra) - 1} more" if extra[1:] else ""),
                expected="the tensors of a Qwen3 only",
                hint="merge adapters into the weights first; other extensions cannot be converted",
                tensor=extra[0],
            )

    # ----------------------------------------------------------------------------- errors

    def missing(self, name: str) -> InvalidFile:
        return InvalidFile(
            str(self.checkpoint.folder),
            found=f"no tensor {name}",
            expected="every tensor of the model that config.json describes",
            hint=REFETCH,
            tensor=name,
        )

    def wrong(self, name: str, found: str, expected: str) -> InvalidFile:
        path = self.tensors[name][0] if name in self.tensors else self.checkpoint.folder / name
        return InvalidFile(
            str(path), found=f"{name}: {found}", expected=expected, hint=REFETCH, tensor=name
        )

    def unknown(self, name: str, found: str) -> FormatUnavailable:
        return FormatUnavailable(
            str(self.tensors[name][0]),
            found=f"{name}: {found}",
            expected="plain floats, block FP8, compressed-tensors, AWQ (gemm), GPTQ or MLX affine",
            hint="convert the original bf16 weights",
            tensor=name,
        )
