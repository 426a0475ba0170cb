"""With llm-compressor itself, where it is installed: better than rounding to nearest, and whole."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qwharf import calibration, engines, settings
from qwharf.artifacts.convert import convert
from qwharf.artifacts.positioned import Files
from qwharf.artifacts.stored import read_stored
from qwharf.catalog.pocket import FOLDER
from qwharf.fidelity import Subject, compare_outputs
from qwharf.settings import Settings
from qwharf.testing import TINY_MOE, write_synthetic_checkpoint
from qwharf.texts import text
from qwharf.types import Format

pytestmark = [pytest.mark.engines, pytest.mark.timeout(1800)]

HOME = os.environ.get("QWHARF_HOME")
"""As the tests were started with."""
SEQUENCES = 12


@pytest.fixture(scope="module")
def real() -> Settings:
    where = settings.load({"QWHARF_HOME": HOME} if HOME else {})
    if engines.find(calibration.ENGINE, settings=where) is None:
        pytest.skip("needs `qwharf engine install llm-compressor`")
    return where


def calibrated(source: Path, quantization: str, folder: Path, where: Settings, most: int) -> Path:
    target = Format("safetensors", quantization)
    plan = calibration.plan(source, target, calibration.read_text("default"), where)
    plan = replace(plan, sequences=plan.sequences[:most], log_path=folder / "log")
    told: list[float] = []
    plan.run(folder / "layers", lambda done, total: told.append(done / total))
    assert told == sorted(told) and told[0] < 0.5 and told[-1] == 1
    convert(source, target, folder / "made", calibrated=folder / "layers")
    return folder / "made"


def divergence(source: Path, made: Path) -> float:
    a, b = Subject.read(source), Subject.read(made)
    return compare_outputs(a, b, text("evaluation"), "text", tokens=768).kl_mean


@pytest.mark.parametrize("quantization", ["awq", "gptq-int4"])
def test_no_worse_than_rounding_to_nearest(
    real: Settings, tmp_path: Path, quantization: str
) -> None:
    convert(FOLDER, Format("safetensors", quantization), tmp_path / "nearest")
    made = calibrated(FOLDER, quantization, tmp_path, real, SEQUENCES)
    assert divergence(FOLDER, made) <= divergence(FOLDER, tmp_path / "nearest")
    assert not (tmp_path / "layers.partial").exists()


@pytest.mark.parametrize("quantization", ["awq", "w8a8"])
def test_experts_are_calibrated(real: Settings, tmp_path: Path, quantization: str) -> None:
    source, target = tmp_path / "source", Format("safetensors", quantization)
    shape = replace(TINY_MOE, num_hidden_layers=2, num_experts=4)
    write_synthetic_checkpoint(shape, source, vocab="tiny", chat_template="{{ messages }}")
    made = calibrated(source, quantization, tmp_path, real, 4)
    assert read_stored(made).format == target
    convert(source, target, tmp_path / "nearest")
    # Of random weights there is nothing to be learnt; but what was scaled must be scaled back.
    assert divergence(source, made) <= 2 * divergence(source, tmp_path / "nearest")
    numbers = [read_stored(path).matrices for path in (made, tmp_path / "nearest")]
    experts = [name for name in numbers[0] if ".experts." in name]
    assert len(experts) == 2 * 4 * 3
    files = Files()
    for name in experts:
        one, other = (m[name].read(files, 0, m[name].shape[0]) for m in numbers)
        assert not np.array_equal(one, other), name
    files.close()
