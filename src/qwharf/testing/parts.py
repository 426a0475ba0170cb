"""A GGUF file in parts, as ``llama-gguf-split`` makes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qwharf.formats.gguf_reader import read_gguf
from qwharf.formats.gguf_writer import GgufWriter


def write_parts(whole: Path, folder: Path, sizes: Sequence[int]) -> Path:
    """Write ``whole`` into ``folder`` in parts, and return the first.

    Args:
        whole: a GGUF file.
        folder: made if needed.
        sizes: tensors of each part; together all that there are.
    """
    source = read_gguf(whole, keep_arrays=True)
    names = list(source.tensors)
    if sum(sizes) != len(names):
        raise ValueError(f"{sizes} are not the {len(names)} tensors")
    folder.mkdir(parents=True, exist_ok=True)
    count = len(sizes)
    paths = [folder / f"{whole.stem}-{n:05d}-of-{count:05d}.gguf" for n in range(1, count + 1)]
    for number, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        here, names = names[:size], names[size:]
        told = {k: (source.kinds[k], v) for k, v in source.metadata.items()} if not number else {}
        told |= {
            "split.no": ("u16", number),
            "split.count": ("u16", count),
            "split.tensors.count": ("i32", len(source.tensors)),
        }
        tensors = [source.tensors[n] for n in here]
        with GgufWriter(path, told, [(t.name, t.shape, t.type) for t in tensors]) as out:
            for name in here:
                for piece in source.chunks(name):
                    out.write(piece)
    return paths[0]
