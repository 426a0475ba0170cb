"""The real template and tokenizer of the pocket model, and endpoints that use them."""

import sys
from pathlib import Path

import pytest

import qwharf
from qwharf.verify import Reference

sys.path.insert(0, str(Path(__file__).parent))

POCKET = Path(qwharf.__file__).parent / "catalog" / "pocket"


@pytest.fixture(scope="session")
def reference() -> Reference:
    return Reference.load(POCKET)
