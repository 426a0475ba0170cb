"""Conversions killed at random moments of a real process: whatever is left, it ends well."""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from qwharf.artifacts.convert import convert
from qwharf.formats.names import parse_format
from qwharf.testing import TINY, write_synthetic_checkpoint

SHAPE = replace(TINY, num_hidden_layers=4, hidden_size=512, intermediate_size=1536)
CHILD = """
import sys
from pathlib import Path
from qwharf.artifacts import streaming
from qwharf.artifacts.convert import convert
from qwharf.formats.names import parse_format
streaming.FLUSH_BYTES = 1 << 20
streaming.PROGRESS_SECONDS = 0.001
convert(
    Path(sys.argv[1]),
    parse_format(sys.argv[2]),
    Path(sys.argv[3]),
    threads=2,
    progress=lambda done, total, _: print(done / total, flush=True),
)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed") / "source"
    write_synthetic_checkpoint(SHAPE, folder, vocab="tiny", chat_template="{{ messages }}")
    return folder


def sha256(path: Path) -> str:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def kill_at(moment: float, source: Path, target: str, out: Path) -> bool:
    """Convert in a process that is killed when it is so far; whether it was killed in time."""
    argv = [sys.executable, "-c", CHILD, str(source), target, str(out)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if float(line) >= moment:
                child.send_signal(signal.SIGKILL)
                break
    return child.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("target", "kills"), [("gguf:q4_k_m", 5), ("gptq", 20), ("mlx:4", 5), ("fp8", 5)]
)
def test_killed_at_random_moments(source: Path, tmp_path: Path, target: str, kills: int) -> None:
    clean = tmp_path / "clean" / "out"
    convert(source, parse_format(target), clean, threads=2)
    wanted = sha256(clean)
    out = tmp_path / "work" / "out"
    pick = random.Random(7)
    killed = resumed = 0
    for _ in range(kills):
        killed += kill_at(pick.random() * 0.9, source, target, out)
        made = convert(source, parse_format(target), out, threads=2)
        resumed += made.resumed_tensors > 0
        assert sha256(out) == wanted
        assert [p.name for p in out.parent.iterdir()] == ["out"]
        shutil.rmtree(out.parent)
    assert killed > kills / 2 and resumed > kills / 4


def test_killed_again_and_again(source: Path, tmp_path: Path) -> None:
    """Every run goes on where the one before it was killed."""
    clean, out = tmp_path / "clean", tmp_path / "out"
    convert(source, parse_format("awq"), clean)
    for n in range(6):
        kill_at(0.1 + 0.14 * n, source, "awq", out)
    convert(source, parse_format("awq"), out)
    assert sha256(out) == sha256(clean)
