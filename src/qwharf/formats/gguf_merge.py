"""The parts of a split GGUF file put together: one file with the same tensors, byte for byte.

Some engines take one file only, and the largest models are published in parts. The metadata is the
first part's without the keys that tell of parts (llama.cpp ``tools/gguf-split``), the tensors stand
in the order of the parts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qwharf.errors import InvalidFile
from qwharf.formats.gguf import all_tensors, read_gguf, split_parts
from qwharf.formats.gguf_writer import GgufWriter

PART_KEYS = ("split.no", "split.count", "split.tensors.count")

Step = Callable[[int, int], None]
"""Takes the bytes of tensors that are written, and all there will be."""


def merge_gguf(part: Path, out: Path, step: Step | None = None) -> None:
    """Write the file that ``part`` and its siblings are parts of to ``out``, in bounded memory.

    Args:
        part: any of them.
        out: gets its name when it is whole; an existing file is replaced.
        step: is told how far it is.

    Raises:
        InvalidFile: there is nothing to merge, a part is missing or damaged, or they do not belong
            together.
        StorageError: no room, or no permission.
    """
    paths = split_parts(part)
    first = read_gguf(paths[0], keep_arrays=True)
    tensors = all_tensors(first)
    if len(paths) < 2 or first.metadata.get("split.count") != len(paths):
        raise InvalidFile(
            str(part),
            found=f"split.count = {first.metadata.get('split.count')!r:.40}",
            expected="a file in parts, named …-00001-of-00002.gguf and so on",
            hint="there is nothing to merge",
        )
    metadata = {
        key: (first.kinds[key], value)
        for key, value in first.metadata.items()
        if key not in PART_KEYS
    }
    total = sum(t.size_bytes for t in tensors.values())
    done = 0
    with GgufWriter(
        out, metadata, [(t.name, t.shape, t.type) for t in tensors.values()], first.alignment
    ) as file:
        for path in paths:
            here = read_gguf(path)
            for name in here.tensors:
                for piece in here.chunks(name):
                    file.write(piece)
                    done += len(piece)
                    if step is not None:
                        step(done, total)
