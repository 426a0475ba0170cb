"""The pocket model: a very small real Qwen3 checkpoint that ships in the package."""

from __future__ import annotations

import json
from pathlib import Path

from qwharf.types import Format, Model

FOLDER = Path(__file__).with_name("pocket")


def model() -> Model | None:
    """The pocket model's entry; ``None`` where its checkpoint is not there."""
    config = FOLDER / "config.json"
    if not (config.is_file() and (FOLDER / "model.safetensors").is_file()):
        return None

    from qwharf.catalog.data import CatalogueError, presets
    from qwharf.formats.checkpoint import architecture_from_config

    data = json.loads(config.read_text("utf-8"))
    architecture = architecture_from_config(data, file=str(config))
    if architecture.is_moe:
        raise CatalogueError(f"{config}: the pocket model is dense")
    return Model(
        name="pocket",
        title="qwharf pocket model",
        architecture=architecture,
        thinking="hybrid",
        sampling=presets("hybrid"),
        native_context_tokens=architecture.max_position_embeddings,
        max_context_tokens=architecture.max_position_embeddings,
        license="Apache-2.0",
        path=FOLDER,
        path_format=Format("safetensors", "bf16"),
        note="A test article and a demonstration: trained by this project on text that it makes. "
        "It obeys the Qwen3 contract and knows next to nothing.",
    )
