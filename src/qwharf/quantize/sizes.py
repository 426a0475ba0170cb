"""How many bytes a GGUF file takes, from the architecture and the quantisation alone.

A file is a header (metadata, most of it the vocabulary, and a table of the tensors), padding, and
the tensors, each padded to the alignment. Tensor bytes follow from shapes and types; only the
metadata depends on the text in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from qwharf.formats.ggml_types import GgmlType
from qwharf.formats.tensors import TensorSpec
from qwharf.quantize.mixing import tensor_types
from qwharf.types import Architecture

ALIGNMENT = 32
"""Bytes; GGUF's default, which llama.cpp's tools always use."""

FIXED_HEADER_BYTES = 4 + 4 + 8 + 8
"""Magic, version, number of tensors, number of metadata entries."""

VOCABULARY_METADATA_BYTES = 5_932_859
"""What the metadata of Qwen's own files takes: 151,936 tokens, their merges, the template.

That of the 0.6B, 1.7B and 4B to the byte; of the others within 150 bytes.
"""


def tensor_bytes(shape: tuple[int, ...], kind: GgmlType) -> int:
    """Bytes of one tensor without padding."""
    return prod(shape) // kind.block_elements * kind.block_bytes


def padded(size_bytes: int) -> int:
    """``size_bytes`` rounded up to the alignment."""
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT


def data_bytes(tensors: Iterable[tuple[TensorSpec, GgmlType]]) -> int:
    """Bytes of the data part of a GGUF file with these tensors."""
    return sum(padded(tensor_bytes(spec.shape, kind)) for spec, kind in tensors)


def weight_bytes(arch: Architecture, quantization: str) -> int:
    """Bytes of all tensors of ``arch`` in a GGUF file, padding between them included.

    Raises:
        UsageError: no such quantisation.
    """
    return data_bytes(tensor_types(arch, quantization))


def tensor_table_bytes(tensors: Iterable[TensorSpec]) -> int:
    """Bytes of the header's table: per tensor name, dimensions, type and offset."""
    return sum(8 + len(s.name.encode()) + 4 + 8 * len(s.shape) + 4 + 8 for s in tensors)


def file_size(
    arch: Architecture, quantization: str, metadata_bytes: int = VOCABULARY_METADATA_BYTES
) -> int:
    """Bytes of a whole GGUF file.

    Args:
        arch: the model.
        quantization: ``q4_k_m`` …
        metadata_bytes: encoded size of the metadata entries; exact if this is.
    """
    tensors = tensor_types(arch, quantization)
    header = FIXED_HEADER_BYTES + metadata_bytes + tensor_table_bytes(s for s, _ in tensors)
    return padded(header) + data_bytes(tensors)
