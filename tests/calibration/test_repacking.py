"""Numbers that were chosen already keep their values, and take the form of a plain conversion."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qwharf.artifacts.convert import convert
from qwharf.artifacts.positioned import Files
from qwharf.artifacts.stored import read_stored
from qwharf.calibration.methods import METHODS, Method
from qwharf.errors import InvalidFile
from qwharf.formats.safetensors import read_safetensors
from qwharf.formats.weights.compressed import dequantize_int8, dequantize_packed, unpack_zero_points
from qwharf.formats.weights.floats import STORED, to_f32
from qwharf.types import Format

from . import calibrated_layers


def layers(model: Path, method: Method, folder: Path, **more: Any) -> Path:
    """What a calibration leaves: see :mod:`qwharf.calibration.running`."""
    folder.mkdir()
    job = {
        "model": str(model),
        "files": [str(f) for f in read_stored(model).files],
        "out": str(folder),
        "weights": method.weights(),
        "format": method.layout,
        "scales": method.scales,
        "sequences": [[1]],
        **more,
    }
    calibrated_layers.main(job)
    config = json.loads((model / "config.json").read_text("utf-8"))
    config["quantization_config"] = {"quant_method": "compressed-tensors"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def arrays(folder: Path) -> dict[str, NDArray[Any]]:
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, entry in read_safetensors(path).tensors.items():
            count = int(np.prod(entry.shape))
            raw = np.fromfile(path, STORED[entry.dtype], count, offset=entry.offset)
            found[name] = raw.reshape(entry.shape)
            if entry.dtype in ("BF16", "F16", "F32"):
                found[name] = to_f32(entry.dtype, found[name])
    return found


def values(folder: Path) -> dict[str, NDArray[np.float32]]:
    files, found = Files(), {}
    for name, matrix in read_stored(folder).matrices.items():
        found[name] = matrix.read(files, 0, matrix.shape[0])
    files.close()
    return found


def expected(stored: dict[str, NDArray[Any]], module: str, method: Method) -> Any:
    """A matrix of the calibrated layers."""
    scales = stored[f"{module}.weight_scale"]
    if method.layout == "int-quantized":
        return dequantize_int8(stored[f"{module}.weight"], scales)
    packed = stored[f"{module}.weight_packed"]
    rows, columns = stored[f"{module}.weight_shape"]
    zeros = stored.get(f"{module}.weight_zero_point")
    return dequantize_packed(
        packed,
        scales,
        bits=method.bits,
        columns=int(columns),
        zero_points=None if zeros is None else unpack_zero_points(zeros, method.bits, int(rows)),
    )


@pytest.mark.parametrize("quantization", METHODS)
def test_the_numbers_are_those_of_the_calibration(
    model: Path, tmp_path: Path, quantization: str
) -> None:
    method, target = METHODS[quantization], Format("safetensors", quantization)
    found = layers(model, method, tmp_path / "layers", norms=2)
    convert(model, target, tmp_path / "made", calibrated=found)
    stored, made, source = arrays(found), values(tmp_path / "made"), values(model)
    assert made.keys() == source.keys()
    modules = 0
    for name, matrix in made.items():
        module = name.removesuffix(".weight")
        if f"{module}.weight_scale" in stored:
            np.testing.assert_array_equal(matrix, expected(stored, module, method))
            modules += 1
        elif name.startswith("model.layers."):  # AWQ has moved scales into norms and routers
            np.testing.assert_allclose(matrix, 2 * source[name], rtol=0.001)
        else:
            np.testing.assert_allclose(matrix, source[name], rtol=0.001, atol=1e-7)
    assert modules == sum("proj" in name for name in made)


@pytest.mark.parametrize("quantization", METHODS)
def test_the_form_is_that_of_a_plain_conversion(
    model: Path, tmp_path: Path, quantization: str
) -> None:
    method, target = METHODS[quantization], Format("safetensors", quantization)
    convert(model, target, tmp_path / "plain")
    found = layers(model, method, tmp_path / "layers")
    convert(model, target, tmp_path / "careful", calibrated=found)
    plain, careful = (sorted((tmp_path / n).iterdir()) for n in ("plain", "careful"))
    assert [p.name for p in plain] == [p.name for p in careful]
    for one, other in zip(plain, careful, strict=True):
        if one.suffix == ".safetensors":
            assert header(one) == header(other)
        else:
            assert one.read_bytes() == other.read_bytes(), one.name


def header(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(struct.unpack("<Q", file.read(8))[0])


@pytest.mark.parametrize("quantization", ["awq", "gptq-int4"])
def test_a_conversion_between_layouts_loses_nothing(
    model: Path, tmp_path: Path, quantization: str
) -> None:
    convert(model, Format("safetensors", "w4a16"), tmp_path / "w4a16")
    convert(tmp_path / "w4a16", Format("safetensors", quantization), tmp_path / "made")
    before, after = values(tmp_path / "w4a16"), values(tmp_path / "made")
    for name in (n for n in before if "proj" in n):
        np.testing.assert_array_equal(before[name], after[name], name)


def damage(folder: Path, name: str, number: float) -> None:
    """Write one number of a tensor of float32."""
    path = folder / "layer-00000.safetensors"
    entry = read_safetensors(path).tensors[name]
    assert entry.dtype == "F32"
    raw = bytearray(path.read_bytes())
    struct.pack_into("<f", raw, entry.offset + 4, number)
    path.write_bytes(raw)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e6])
def test_scales_that_cannot_be_are_refused(dense: Path, tmp_path: Path, number: float) -> None:
    found = layers(dense, METHODS["awq"], tmp_path / "layers")
    damage(found, "model.layers.0.mlp.up_proj.weight_scale", number)
    with pytest.raises(InvalidFile) as refused:
        convert(dense, Format("safetensors", "awq"), tmp_path / "made", calibrated=found)
    assert refused.value.facts["tensor"] == "model.layers.0.mlp.up_proj.weight"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["layers"]


def test_a_layer_that_is_missing_is_named(dense: Path, tmp_path: Path) -> None:
    found = layers(dense, METHODS["awq"], tmp_path / "layers")
    index = json.loads((found / "model.safetensors.index.json").read_text())
    kept = {n: f for n, f in index["weight_map"].items() if "layers.1." not in n}
    (found / "model.safetensors.index.json").write_text(json.dumps({"weight_map": kept}))
    with pytest.raises(InvalidFile) as refused:
        convert(dense, Format("safetensors", "awq"), tmp_path / "made", calibrated=found)
    assert "model.layers.1" in refused.value.found
