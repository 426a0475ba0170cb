"""A model in LM Studio's folders: the weights, linked, and a description of how to run them.

::

    <models>/qwharf/<name>-gguf/<name>-Q4_K_M.gguf     or <name>-mlx/ with the checkpoint's files
    <home>/hub/models/qwharf/<name>/model.yaml         sampling, context, the thinking switch
    <home>/hub/models/qwharf/<name>/manifest.json      that there is such a model

Names are in lower case with digits, dots and hyphens: LM Studio takes no others for models of the
hub. Where its descriptions lie, and what ``manifest.json`` holds, follows from what its own
catalogue leaves on disks (described by its users, not seen here); the form of ``model.yaml`` was
held against its open schema.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwharf.formats.tensors import parameter_count
from qwharf.platforms.ollama_store import human_number
from qwharf.platforms.placement import Placement, Source
from qwharf.types import DeploymentSpec, Sampling

PUBLISHER = "qwharf"
_PART = re.compile(r"-[0-9]{5}-of-[0-9]{5}(?=\.gguf$)")


def slug(spec: DeploymentSpec) -> str:
    """The deployment's name as LM Studio can have it."""
    return re.sub(r"[^a-z0-9.-]", "-", spec.name.lower())


def key_of(spec: DeploymentSpec) -> str:
    """The model's key: ``qwharf/<name>``."""
    return f"{PUBLISHER}/{slug(spec)}"


def weights_key(spec: DeploymentSpec) -> str:
    """The key of the weights alone."""
    container = "gguf" if spec.format.container == "gguf" else "mlx"
    return f"{key_of(spec)}-{container}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Every file that makes the model."""

    weights: Mapping[Path, Source]
    texts: Mapping[Path, bytes]


def layout(home: Path, models: Path, spec: DeploymentSpec, files: tuple[Source, ...]) -> Layout:
    """The files of ``spec``; computed from the arguments alone."""
    repository = models / weights_key(spec)
    if spec.format.container == "gguf":
        weights = {repository / _file_name(spec, s): s for s in files if s.name.endswith(".gguf")}
    else:
        weights = {repository.joinpath(*s.name.split("/")): s for s in files}
    at = home / "hub" / "models" / PUBLISHER / slug(spec)
    texts = {
        at / "model.yaml": yaml(description(spec)).encode(),
        at / "manifest.json": json.dumps(manifest(spec), indent=2).encode() + b"\n",
    }
    return Layout(weights=weights, texts=texts)


def _file_name(spec: DeploymentSpec, source: Source) -> str:
    part = _PART.search(source.name)
    quantization = spec.format.quantization.upper()
    return f"{slug(spec)}-{quantization}{part[0] if part else ''}.gguf"


def manifest(spec: DeploymentSpec) -> dict[str, Any]:
    """``manifest.json``: the model and what it rests on."""
    return {
        "type": "model",
        "owner": PUBLISHER,
        "name": slug(spec),
        "dependencies": [
            {
                "type": "model",
                "purpose": "baseModel",
                "modelKeys": [weights_key(spec)],
                "sources": [],
            }
        ],
        "revision": 1,
    }


def description(spec: DeploymentSpec) -> dict[str, Any]:
    """``model.yaml``: defaults of requests and loads, and the switch for thinking.

    MLX weights are called ``safetensors`` here, other than in the REST API.
    """
    sampling = spec.sampling.get("non-thinking" if spec.thinking == "instruct" else "thinking")
    load = [{"key": "llm.load.contextLength", "value": spec.context_tokens}]
    told: dict[str, Any] = {
        "model": key_of(spec),
        "base": [{"key": weights_key(spec), "sources": []}],
        "metadataOverrides": {
            "domain": "llm",
            "architectures": ["qwen3moe" if spec.architecture.is_moe else "qwen3"],
            "compatibilityTypes": ["gguf" if spec.format.container == "gguf" else "safetensors"],
            "paramsStrings": [human_number(parameter_count(spec.architecture))],
            "contextLengths": [spec.architecture.max_position_embeddings],
            "vision": False,
            "reasoning": spec.thinking != "instruct",
            "trainedForToolUse": True,
        },
        "config": {
            "operation": {"fields": _fields(sampling) if sampling else []},
            "load": {"fields": load},
        },
    }
    if spec.thinking == "hybrid":
        told["customFields"] = [
            {
                "key": "enableThinking",
                "displayName": "Enable Thinking",
                "description": "Whether the model thinks before it answers",
                "type": "boolean",
                "defaultValue": True,
                "effects": [{"type": "setJinjaVariable", "variable": "enable_thinking"}],
            }
        ]
    return told


def _fields(sampling: Sampling) -> list[dict[str, Any]]:
    """Sampling under the names of LM Studio's configuration; its own repeat penalty is 1.1."""
    fields = {
        "llm.prediction.temperature": sampling.temperature,
        "llm.prediction.topKSampling": sampling.top_k,
        "llm.prediction.topPSampling": _checked(sampling.top_p),
        "llm.prediction.minPSampling": _checked(sampling.min_p),
        "llm.prediction.repeatPenalty": _checked(1.0),
    }
    if sampling.presence_penalty:
        fields["llm.prediction.llama.presencePenalty"] = _checked(sampling.presence_penalty)
    return [{"key": key, "value": value} for key, value in fields.items()]


def _checked(value: float) -> dict[str, Any]:
    return {"checked": True, "value": value}


def yaml(value: Any, indent: int = 0) -> str:
    """``value`` in the plainest YAML: blocks of keys and items, scalars as JSON writes them."""
    pad = "  " * indent
    if isinstance(value, dict):
        return "".join(f"{pad}{key}:{_inner(item, indent)}" for key, item in value.items())
    items = []
    for item in value:
        if isinstance(item, dict):
            block = yaml(item, indent + 1)
            items.append(f"{pad}- {block[len(pad) + 2 :]}")
        else:
            items.append(f"{pad}- {json.dumps(item, ensure_ascii=False)}\n")
    return "".join(items)


def _inner(value: Any, indent: int) -> str:
    if isinstance(value, dict | list) and value:
        return "\n" + yaml(value, indent + 1)
    return f" {json.dumps(value, ensure_ascii=False)}\n"


# ------------------------------------------------------------------------- placing and taking back


def place(placement: Placement, files: Layout) -> str:
    """Bring the model into LM Studio's folders; what announces it comes last.

    Returns:
        How the weights came in.

    Raises:
        CopyNeeded, Conflict, StorageError: see :class:`Placement`.
    """
    ways = {placement.share(s.path, path, s.sha256) for path, s in files.weights.items()}
    for path, data in files.texts.items():
        placement.write(path, data, hashlib.sha256(data).hexdigest())
    return " and ".join(sorted(ways))


def tidy(home: Path, models: Path) -> tuple[Path, ...]:
    """Below these, folders that we emptied may go."""
    return (models, home / "hub" / "models")
