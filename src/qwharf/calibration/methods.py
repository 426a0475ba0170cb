"""What can be calibrated, and how: which method, how many bits, and what is computed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from qwharf.errors import FormatUnavailable
from qwharf.formats.weights import compressed
from qwharf.types import Format


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How one format is calibrated."""

    name: Literal["awq", "gptq"]
    bits: int
    symmetric: bool = True
    group: int | None = compressed.GROUP
    """Inputs with a scale of their own; ``None``: all of a row."""
    dtype: Literal["float32", "bfloat16"]
    """Computed in, and of scales. The target's scales are bf16, or f16, which float32 is cut to."""
    eight_bit_activations: bool = False

    @property
    def dtype_bytes(self) -> int:
        """Size of a number."""
        return 4 if self.dtype == "float32" else 2

    def weights(self) -> dict[str, Any]:
        """As compressed-tensors is told of them (``QuantizationArgs``)."""
        made: dict[str, Any] = {"num_bits": self.bits, "type": "int", "symmetric": self.symmetric}
        made["observer"] = "mse"  # a scale that spoils least, not one that reaches the extremes
        if self.group is None:
            return made | {"strategy": "channel"}
        return made | {"strategy": "group", "group_size": self.group}

    def activations(self) -> dict[str, Any] | None:
        """The same of what is multiplied with the weights; ``None``: stays as it is."""
        if not self.eight_bit_activations:
            return None
        kept = {"num_bits": 8, "type": "int", "symmetric": True}
        return kept | {"strategy": "token", "dynamic": True}

    @property
    def layout(self) -> str:
        """How compressed-tensors stores it."""
        return "int-quantized" if self.eight_bit_activations else "pack-quantized"


METHODS: Mapping[str, Method] = {
    "awq": Method(name="awq", bits=4, symmetric=False, dtype="float32"),
    "gptq-int4": Method(name="gptq", bits=4, dtype="float32"),
    "gptq-int8": Method(name="gptq", bits=8, dtype="float32"),
    "w4a16": Method(name="gptq", bits=4, dtype="bfloat16"),
    "w8a8": Method(name="gptq", bits=8, group=None, dtype="bfloat16", eight_bit_activations=True),
}
"""By quantisation."""


def method_of(target: Format) -> Method:
    """How ``target`` is calibrated.

    Raises:
        FormatUnavailable: it is not; says what is.
    """
    if target.container == "safetensors" and target.quantization in METHODS:
        return METHODS[target.quantization]
    raise FormatUnavailable(
        "--calibrate",
        found=str(target),
        expected=f"a format that can be calibrated: {', '.join(METHODS)}",
        hint="for GGUF make an importance matrix of the text (`qwharf imatrix`) and give it "
        "with --imatrix"
        if target.container == "gguf"
        else "leave it out: this format is rounded to nearest",
    )
