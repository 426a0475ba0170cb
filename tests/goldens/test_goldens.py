"""Every model on every platform of three machines: what would be run is what was written down."""

from pathlib import Path

import pytest
from golden_rehearsals import HERE, MACHINES, MODELS, driven, path_of, text_of

REWRITE = f"python {HERE.name}/golden_rehearsals.py writes them anew; then read the difference"


@pytest.mark.parametrize("platform", driven())
@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.stem)
def test_what_would_be_run_is_as_written_down(machine: Path, platform: str) -> None:
    path = path_of(machine, platform)
    assert path.is_file(), f"nothing is written down for {platform}: {REWRITE}"
    assert text_of(machine, platform) == path.read_text("utf-8"), REWRITE


def test_nothing_is_written_down_for_what_is_not_driven() -> None:
    known = {path_of(m, p) for m in MACHINES for p in driven()}
    assert set(HERE.glob("*/*.txt")) <= known


@pytest.mark.parametrize(
    "path", sorted(HERE.glob("*/*.txt")), ids=lambda p: f"{p.parent.stem}-{p.stem}"
)
def test_each_file_has_all_models_and_no_stranger(path: Path) -> None:
    text = path.read_text("utf-8")
    assert [line.split()[3] for line in text.splitlines() if line.startswith("$ ")] == [
        f"qwen3:{size}" for size in MODELS
    ]
    assert "Traceback" not in text
    for block in text.split("\n\n$ "):
        assert "\nrun " in block or "\nrequest " in block or "hint:" in block
