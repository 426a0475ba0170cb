"""What the tests of services share: a home of one's own, an artifact in it, folders compared."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from engine_process import spec_of

from qwharf import settings
from qwharf.artifacts.importing import import_path
from qwharf.artifacts.store import Store
from qwharf.types import Artifact, DeploymentSpec, Sampling

SAMPLING = {
    "thinking": Sampling(temperature=0.6, top_p=0.95, top_k=20),
    "non-thinking": Sampling(temperature=0.7, top_p=0.8, top_k=20, presence_penalty=1.5),
}


@dataclass
class Home:
    """A user's home with a qwharf in it."""

    path: Path
    patch: pytest.MonkeyPatch

    @property
    def store(self) -> Store:
        return Store(settings.load().store_dir)

    def keep(self, gguf: Path) -> Artifact:
        """Bring weights into the store."""
        return import_path(self.store, gguf, model="tiny").artifact

    def spec(self, artifact: Artifact, platform: str, **fields: Any) -> DeploymentSpec:
        wishes: dict[str, Any] = {
            "platform": platform,
            "artifact_id": artifact.id,
            "format": artifact.format,
            "sampling": SAMPLING,
        }
        return spec_of(artifact.path, **wishes | fields)


@contextmanager
def new_home(path: Path) -> Iterator[Home]:
    """Everything that tells where things lie points into ``path``."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name.startswith(("OLLAMA_", "QWHARF_", "LM_", "LMSTUDIO_", "LMS_")):
                patch.delenv(name)
        patch.setenv("HOME", str(path))
        patch.setenv("USERPROFILE", str(path))
        patch.setenv("QWHARF_HOME", str(path / "qwharf"))
        patch.setenv("OLLAMA_HOST", "127.0.0.1:9")  # nobody listens there
        patch.setenv("LMSTUDIO_URL", "http://127.0.0.1:9")
        path.mkdir(parents=True, exist_ok=True)
        yield Home(path, patch)


def tree(root: Path) -> dict[str, str]:
    """Every file below ``root`` and a hash of its content."""
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def quiet(_text: str) -> None:
    """Hears what a platform tells."""


def installed(folder: Path) -> Path:
    """An ``ollama`` in ``folder``, for the PATH; it is the double."""
    folder.mkdir(exist_ok=True)
    path = folder / "ollama"
    double = Path(__file__).with_name("ollama_double.py")
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{double}" "$@"\n')
    path.chmod(0o755)
    return path
