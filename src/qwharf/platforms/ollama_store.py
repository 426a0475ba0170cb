"""A model in Ollama's store, made by hand: contents under their hashes, the manifest last.

``ollama create`` would rewrite the weights and keep both copies; a store written by hand is
accepted by a running server, at once, and never rewritten (seen with 0.33).

What goes in: the GGUF, linked; the parameters (context, sampling, threads), so that every request
that says nothing is served right; the licence. **No template layer**: with the GGUF's own template
a plain chat is rendered exactly, with a Go template no conversation with tools is, and with the
form of Ollama's own qwen3 tags the model is shown Go structs instead of JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwharf.artifacts import ollama_models
from qwharf.artifacts.ollama_models import Manifest, Name
from qwharf.errors import Conflict, InvalidFile
from qwharf.formats.tensors import parameter_count
from qwharf.platforms.placement import Placement, Source
from qwharf.types import DeploymentSpec, Sampling

NAMESPACE = "qwharf"
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LICENSE_LAYER = "application/vnd.ollama.image.license"
REPEAT_PENALTY = 1.0
"""Qwen3 wants none; said aloud, because Ollama's own default has changed before."""


def name_of(spec: DeploymentSpec) -> Name:
    """The model's name: ``qwharf/<deployment>``."""
    return Name(namespace=NAMESPACE, model=spec.name)


def model_of(spec: DeploymentSpec) -> str:
    """The same, as requests write it."""
    return f"{NAMESPACE}/{spec.name}"


def load_options(spec: DeploymentSpec) -> dict[str, Any]:
    """The options that a model is loaded with; a request with others would reload it."""
    options: dict[str, Any] = {"num_ctx": spec.context_tokens}
    if spec.threads is not None:
        options["num_thread"] = spec.threads
    return options


def parameters(spec: DeploymentSpec) -> dict[str, Any]:
    """The parameters of the model: :func:`load_options`, and the sampling of its usual mode.

    There is one set; requests that switch thinking off bring the other one along.
    """
    sampling = spec.sampling.get("non-thinking" if spec.thinking == "instruct" else "thinking")
    return load_options(spec) | (_options(sampling) if sampling else {})


def _options(sampling: Sampling) -> dict[str, Any]:
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "repeat_penalty": REPEAT_PENALTY,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Every file that makes the model."""

    weights: Path
    """Where the GGUF goes."""
    contents: Mapping[Path, bytes]
    """The small contents."""
    manifest_path: Path
    manifest: bytes


def layout(models: Path, spec: DeploymentSpec, source: Source, license: str | None) -> Layout:
    """The files of ``spec`` in the store ``models``; computed from the arguments alone."""
    contents: dict[Path, bytes] = {}

    def content(media_type: str, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        contents[ollama_models.blob_path(models, digest)] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    config = content(CONFIG_TYPE, _json(_config(spec)))
    layers = [
        {
            "mediaType": ollama_models.MODEL_LAYER,
            "digest": f"sha256:{source.sha256}",
            "size": source.size_bytes,
        },
        content(ollama_models.PARAMS_LAYER, _json(parameters(spec))),
    ]
    if license:
        layers.append(content(LICENSE_LAYER, license.encode()))
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config,
        "layers": layers,
    }
    return Layout(
        weights=ollama_models.blob_path(models, source.sha256),
        contents=contents,
        manifest_path=name_of(spec).path(models),
        manifest=_json(manifest),
    )


def _config(spec: DeploymentSpec) -> dict[str, Any]:
    family = "qwen3moe" if spec.architecture.is_moe else "qwen3"
    return {
        "model_format": "gguf",
        "model_family": family,
        "model_families": [family],
        "model_type": human_number(parameter_count(spec.architecture)),
        "file_type": spec.format.quantization.upper(),
        "architecture": "amd64",
        "os": "linux",
    }


def human_number(count: int) -> str:
    """A number of parameters as Ollama writes it: ``8.2B``, ``3.39M``."""
    for unit, letter, digits in ((10**9, "B", 1), (10**6, "M", 2), (10**3, "K", 0)):
        if count >= unit:
            return (
                f"{count // unit}{letter}"
                if count % unit == 0
                else (f"{count / unit:.{digits}f}{letter}")
            )
    return str(count)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


# ------------------------------------------------------------------------- placing and taking back


def place(placement: Placement, source: Source, files: Layout) -> str:
    """Bring the model into the store; the manifest, which makes it one, comes last.

    Returns:
        How the weights came in.

    Raises:
        CopyNeeded, Conflict, StorageError: see :class:`Placement`.
    """
    how = placement.share(source.path, files.weights, source.sha256, by_content=True)
    for path, data in files.contents.items():
        placement.write(path, data, path.name.removeprefix("sha256-"))
    digest = hashlib.sha256(files.manifest).hexdigest()
    placement.write(files.manifest_path, files.manifest, digest)
    return how


def tidy(models: Path) -> tuple[Path, ...]:
    """Below these, folders that we emptied may go."""
    return (models / "manifests" / ollama_models.HOST,)


class Needed:
    """Whether a file of a store must stay when a model is taken back, manifest first.

    A content stays as long as a manifest that is still there names it; and all stay while one
    cannot be read, as Ollama itself does.
    """

    def __init__(self) -> None:
        self._digests: dict[Path, set[str] | None] = {}

    def __call__(self, path: Path) -> bool:
        """Whether ``path`` must stay."""
        if path.parent.name != "blobs":
            return False
        models = path.parent.parent
        if models not in self._digests:  # not before: now the manifest is gone, if it was ours
            self._digests[models] = _named_in(models)
        named = self._digests[models]
        return named is None or path.name.removeprefix("sha256-") in named


def _named_in(models: Path) -> set[str] | None:
    named: set[str] = set()
    try:
        for manifest in ollama_models.manifests(models):
            named |= manifest.digests
    except (InvalidFile, OSError):
        return None
    return named


def refuse_rivals(models: Path, spec: DeploymentSpec, sha256: str) -> None:
    """Two models of ours on one file of weights share one runner: with other load options they
    would throw each other out of memory with every request.

    Raises:
        Conflict: there is such a model, or one whose name differs in case alone.
    """
    mine = name_of(spec)
    for name, _ in ollama_models.names(models):
        if name.namespace != NAMESPACE or name == mine:
            continue
        if str(name).casefold() == str(mine).casefold():
            raise Conflict(
                spec.name,
                found=f"`{name}` in Ollama, which takes both for one name",
                hint="deploy under another name: `--name`",
            )
        try:
            manifest = ollama_models.read_manifest(models, name)
        except InvalidFile:
            continue
        layer = manifest.layer(ollama_models.MODEL_LAYER)
        if layer is None or layer.sha256 != sha256:
            continue
        theirs = _load_options(models, manifest)
        if theirs != load_options(spec):
            raise Conflict(
                spec.name,
                found=f"`{name.model}` on the same weights with {_shown(theirs)}",
                expected=f"the same load options for both; asked were {_shown(load_options(spec))}",
                hint=f"give both one --context, `qwharf down {name.model}` first, or deploy one of "
                "them in another format",
            )


def _load_options(models: Path, manifest: Manifest) -> dict[str, Any]:
    layer = manifest.layer(ollama_models.PARAMS_LAYER)
    try:
        found = json.loads(layer.path(models).read_bytes()) if layer else {}
    except (OSError, ValueError):
        found = {}
    return {k: v for k, v in found.items() if k in ("num_ctx", "num_thread")}


def _shown(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in options.items()) or "no options"
