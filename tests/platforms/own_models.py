"""A model that the user made in Ollama's store."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path


def own_model(models: Path, weights: Path, name: str = "library/mine/latest") -> Path:
    """A model that the user made, by a copy of the weights unless its content is there."""
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    blobs = models / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    blob = blobs / f"sha256-{digest}"
    if not blob.exists():
        shutil.copy(weights, blob)
    config = b"{}"
    config_digest = hashlib.sha256(config).hexdigest()
    (blobs / f"sha256-{config_digest}").write_bytes(config)
    manifest = models / "manifests" / "registry.ollama.ai" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    layer = {"digest": f"sha256:{digest}", "size": weights.stat().st_size}
    body = {
        "schemaVersion": 2,
        "config": {"mediaType": "x", "digest": f"sha256:{config_digest}", "size": 2},
        "layers": [{"mediaType": "application/vnd.ollama.image.model", **layer}],
    }
    manifest.write_text(json.dumps(body))
    return manifest
