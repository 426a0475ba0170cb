"""The library, compiled once per version of its sources, and the reference to hold it against."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qwharf.quantize import building, ggml, kernels
from qwharf.quantize.kernels import Native


@pytest.fixture(scope="session")
def library_path(request: pytest.FixtureRequest) -> Path:
    if not building.supported():
        pytest.skip("there are no kernels for this kind of machine")
    folder = Path(request.config.cache.mkdir("kernels"))  # type: ignore[union-attr]
    made = folder / building.library_name()
    if made.is_file():
        return made
    if building.compiler() is None:
        pytest.skip("no C compiler to build the kernels with")
    return building.build(folder)


@pytest.fixture(scope="session")
def native(library_path: Path) -> Native:
    return Native(library_path, ggml.library())


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[kernels._State]:
    """Nothing looked for yet, and an empty cache."""
    state = kernels._State()
    monkeypatch.setattr(kernels, "_state", state)
    monkeypatch.setenv("QWHARF_HOME", str(tmp_path))
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
    yield state
    if state.builder is not None:
        state.builder.join()
