"""What can be calibrated, and how: which method, how many bits, which scales."""

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
    scales: Literal["float16", "bfloat16"]
    """What the target stores scales in: numbers are chosen for scales that it has."""
    eight_bit_activations: bool = False

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
    "awq": Method(name="awq", bits=4, symmetric=False, scales="float16"),
    "gptq-int4": Method(name="gptq", bits=4, scales="float16"),
    "gptq-int8": Method(name="gptq", bits=8, scales="float16"),
    "w4a16": Method(name="gptq", bits=4, scales="bfloat16"),
    "w8a8": Method(name="gptq", bits=8, group=None, scales="bfloat16", eight_bit_activations=True),
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
