"""Which quantisers are used: found, built, believed, or not."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from qwharf.artifacts.convert import convert
from qwharf.errors import UsageError
from qwharf.formats.ggml_types import GGML_TYPES
from qwharf.formats.names import parse_format
from qwharf.quantize import building, ggml, grouped, kernels
from qwharf.testing import write_synthetic_checkpoint
from qwharf.types import Architecture

from .comparing import reference
from .distributions import weights

SHAPE = Architecture(
    model_type="qwen3",
    num_hidden_layers=2,
    hidden_size=256,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=128,
    intermediate_size=512,
    vocab_size=512,
    tie_word_embeddings=True,
    max_position_embeddings=40960,
    bos_token_id=151643,
    eos_token_id=151645,
)

LIAR = """
#include <stdint.h>
int qwharf_kernels_level(void) { return 1; }
const char *qwharf_kernels_level_name(int level) { return level ? "liar" : "smaller liar"; }
int64_t qwharf_kernels_quantize(int level, int type, int source, const void *from, void *to,
                                int64_t rows, int64_t columns, const float *w, void *reference) {
    return 0;
}
int64_t qwharf_kernels_mlx(int level, int source, const void *from, int64_t elements, int group,
                           int bits, void *words, float *scales, float *biases) {
    return 0;
}
int64_t qwharf_kernels_fp8(int level, int source, const void *from, int64_t rows, int64_t columns,
                           void *to, float *scales) {
    return 0;
}
"""


@pytest.fixture
def compiler() -> list[str]:
    words = building.compiler()
    if words is None:
        pytest.skip("no C compiler")
    return words


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    write_synthetic_checkpoint(SHAPE, folder, vocab="tiny", chat_template="{{ messages }}")
    return folder


def pretend_compiler(folder: Path, script: str) -> Path:
    """A ``cc`` that does what ``script`` says; ``$out`` is the file to make."""
    path = folder / "pretend-cc"
    path.write_text(
        '#!/bin/sh\nwhile [ $# -gt 0 ]; do [ "$1" = -o ] && out=$2; shift; done\n' + script + "\n"
    )
    path.chmod(0o755)
    return path


def test_nothing_there(fresh: kernels._State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert kernels.native(ggml.library()) is None
    assert "no C compiler" in kernels.describe(ggml.library())
    kernels.prepare(1 << 60, ggml.library())
    assert fresh.builder is None
    rows = weights("normal", 1, (4, 512))
    assert (ggml.quantize("Q4_K", rows) == reference("Q4_K", rows).reshape(-1)).all()


def test_reference_by_wish(
    fresh: kernels._State, library_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = kernels.cache_folder()
    folder.mkdir(parents=True)
    (folder / library_path.name).symlink_to(library_path)
    monkeypatch.setenv(kernels.VARIABLE, "reference")
    assert kernels.native(ggml.library()) is None
    kernels.prepare(1 << 60, ggml.library())
    assert fresh.builder is None


def test_found_in_the_cache(fresh: kernels._State, library_path: Path) -> None:
    folder = kernels.cache_folder()
    folder.mkdir(parents=True)
    (folder / library_path.name).write_bytes(library_path.read_bytes())
    found = kernels.native(ggml.library())
    assert found is not None and found.path.parent == folder
    assert found.level_of(GGML_TYPES["Q4_K"], False) == found.level
    assert found.level_of(GGML_TYPES["Q4_0"], False) is None
    assert str(found.path) in kernels.describe(ggml.library())


def test_a_library_that_others_may_write_is_left_alone(
    fresh: kernels._State, library_path: Path
) -> None:
    folder = kernels.cache_folder()
    folder.mkdir(parents=True)
    copy = folder / library_path.name
    copy.write_bytes(library_path.read_bytes())
    copy.chmod(0o777)
    assert kernels.native(ggml.library()) is None


@pytest.mark.parametrize("content", [None, b"", b"not a library"])
def test_a_path_that_is_no_library(
    fresh: kernels._State,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes | None,
) -> None:
    path = tmp_path / "some.so"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv(kernels.VARIABLE, str(path))
    with pytest.raises(UsageError) as caught:
        kernels.native(ggml.library())
    assert caught.value.subject == kernels.VARIABLE and str(path) in caught.value.found


def test_a_library_with_other_results_is_not_believed(
    fresh: kernels._State,
    tmp_path: Path,
    compiler: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, library = tmp_path / "liar.c", tmp_path / "liar.so"
    source.write_text(LIAR)
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    monkeypatch.setenv(kernels.VARIABLE, str(library))
    liar = kernels.native(ggml.library())
    assert liar is not None and liar.level_of(GGML_TYPES["Q4_K"], False) is None
    rows = weights("normal", 1, (4, 512))
    assert (ggml.quantize("Q4_K", rows) == reference("Q4_K", rows).reshape(-1)).all()
    raw = rows.reshape(-1).view(np.uint8)
    assert grouped.fp8_blocks("F32", raw, 512) is None
    assert grouped.mlx_groups("F32", raw, 512, 4, 64) is None


def test_built_in_the_background_when_worth_it(
    fresh: kernels._State, library_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", str(pretend_compiler(tmp_path, f'cp "{library_path}" "$out"')))
    kernels.prepare(kernels.WORTH_BUILDING - 1, ggml.library())
    assert fresh.builder is None
    kernels.prepare(kernels.WORTH_BUILDING, ggml.library())
    assert fresh.builder is not None
    fresh.builder.join()
    found = kernels.native(ggml.library())
    assert found is not None
    assert [p.name for p in kernels.cache_folder().iterdir()] == [building.library_name()]


def test_a_failure_is_not_repeated(
    fresh: kernels._State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", str(pretend_compiler(tmp_path, "echo out of luck >&2; exit 1")))
    kernels.prepare(1 << 40, ggml.library())
    assert fresh.builder is not None
    fresh.builder.join()
    assert kernels.native(ggml.library()) is None
    monkeypatch.setattr(kernels, "_state", kernels._State())
    kernels.prepare(1 << 40, ggml.library())
    assert kernels._state.builder is None
    assert "could not be built" in kernels.describe(ggml.library())
    with pytest.raises(building.BuildError, match="out of luck"):
        kernels.build(ggml.library())


def test_built_on_demand(
    fresh: kernels._State, library_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", str(pretend_compiler(tmp_path, f'cp "{library_path}" "$out"')))
    before = os.umask(0o002)
    try:
        kernels.build(ggml.library())
    finally:
        os.umask(before)
    monkeypatch.setattr(kernels, "_state", kernels._State())
    assert kernels.native(ggml.library()) is not None


@pytest.mark.parametrize(
    "target", ["gguf:q4_k_m", "gguf:iq4_xs", "gguf:q2_k", "gguf:q8_0", "mlx:4", "mlx:6", "fp8"]
)
def test_whole_conversions_are_the_same(
    fresh: kernels._State,
    library_path: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
) -> None:
    sums = set()
    for n, wish in enumerate(("reference", str(library_path))):
        monkeypatch.setenv(kernels.VARIABLE, wish)
        monkeypatch.setattr(kernels, "_state", kernels._State())
        out = tmp_path / str(n)
        convert(checkpoint, parse_format(target), out, threads=2)
        weight_file = out / "model.safetensors" if out.is_dir() else out
        sums.add(hashlib.sha256(weight_file.read_bytes()).hexdigest())
    assert len(sums) == 1


def test_the_digest_follows_the_sources() -> None:
    assert building.library_name() == f"qwharf-kernels-{building.digest()}.so"
    assert np.all([p.suffix in (".c", ".h") for p in building.SOURCES.iterdir()])
