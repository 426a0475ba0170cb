"""The models that an Ollama on this machine has: where they lie, read without asking it.

Layout (Ollama 0.33, seen)::

    <models>/
      manifests/<host>/<namespace>/<model>/<tag>   JSON: a config and layers, by their digests
      blobs/sha256-<hex>                           their contents; the weights are one GGUF file

``<models>`` is ``OLLAMA_MODELS``, else ``~/.ollama/models``. Names are written
``[host/][namespace/]model[:tag]``; their case is kept in listings and ignored in look-ups.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from qwharf.errors import InvalidFile, UnknownModel, UsageError

HOST, NAMESPACE, TAG = "registry.ollama.ai", "library", "latest"
"""What a name that leaves them out means."""
MODEL_LAYER = "application/vnd.ollama.image.model"
ADAPTER_LAYER = "application/vnd.ollama.image.adapter"
PARAMS_LAYER = "application/vnd.ollama.image.params"
MAX_MANIFEST_BYTES = 4 << 20

SERVICE_HOME = Path("/usr/share/ollama")
"""The home of the user ``ollama`` that the installer for Linux makes."""

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A model's full name."""

    host: str = HOST
    namespace: str = NAMESPACE
    model: str
    tag: str = TAG

    def __str__(self) -> str:
        """As Ollama writes it: what goes without saying is left out, but the tag."""
        path = [self.model]
        if (self.host, self.namespace) != (HOST, NAMESPACE):
            path.insert(0, self.namespace)
        if self.host != HOST:
            path.insert(0, self.host)
        return f"{'/'.join(path)}:{self.tag}"

    def path(self, models: Path) -> Path:
        """Where the manifest lies, or would lie."""
        return models / "manifests" / self.host / self.namespace / self.model / self.tag


def parse_name(text: str) -> Name:
    """The name that ``text`` stands for.

    Raises:
        UsageError: it is none by Ollama's rules.
    """
    *place, last = text.split("/")
    model, _, tag = last.partition(":")
    host, namespace = HOST, NAMESPACE
    if len(place) == 2:
        host, namespace = place
    elif place:
        namespace = place[0]
    name = Name(host=host, namespace=namespace, model=model, tag=tag or TAG)
    if len(place) > 2 or not _is_valid(name):
        raise UsageError(
            text,
            found="not a name of Ollama's",
            expected="[host/][namespace/]model[:tag]",
            hint="see `ollama ls`",
        )
    return name


def _is_valid(name: Name) -> bool:
    return (
        _HOST.fullmatch(name.host) is not None
        and all(_PART.fullmatch(p) for p in (name.namespace, name.model, name.tag))
        and "." not in name.namespace
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One content of a model."""

    media_type: str
    sha256: str
    size_bytes: int
    """As the manifest says; Ollama itself never checks it."""

    def path(self, models: Path) -> Path:
        """Where the content lies."""
        return blob_path(models, self.sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One model of the store."""

    name: Name
    path: Path
    config: Layer
    layers: tuple[Layer, ...]

    def layer(self, media_type: str) -> Layer | None:
        """The first layer of that type."""
        return next((x for x in self.layers if x.media_type == media_type), None)

    @property
    def digests(self) -> frozenset[str]:
        """The sha256 of everything that it needs."""
        return frozenset(x.sha256 for x in (self.config, *self.layers))


def models_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where Ollama keeps its models, as far as the environment tells; it need not exist.

    Where neither ``OLLAMA_MODELS`` nor a store in this user's home is found, but one of the
    service that Ollama's installer sets up, that one is meant.
    """
    env = os.environ if environ is None else environ
    named = env.get("OLLAMA_MODELS", "").strip().strip("\"'")
    if named:
        return Path(named).expanduser()
    home = Path(env["HOME"]) if env.get("HOME") else Path.home()
    own, service = (base / ".ollama" / "models" for base in (home, SERVICE_HOME))
    return service if not own.is_dir() and _is_dir(service) else own


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a home that is closed to us
        return False


def blob_path(models: Path, sha256: str) -> Path:
    """Where a content lies, or would lie."""
    return models / "blobs" / f"sha256-{sha256}"


def sha256_by_name(path: Path) -> str | None:
    """What a blob of Ollama's claims to be."""
    found = _DIGEST.fullmatch(path.name) if path.parent.name == "blobs" else None
    return found[1] if found else None


def read_manifest(models: Path, name: Name) -> Manifest:
    """The manifest of ``name``, looked up as Ollama does: the case does not matter.

    Raises:
        UnknownModel: there is no such model.
        InvalidFile: its manifest cannot be read, or is none.
    """
    path = name.path(models)
    if not path.is_file():
        wanted = str(name).casefold()
        others = dict(names(models))
        path = next((p for n, p in others.items() if str(n).casefold() == wanted), path)
        if path not in others.values():
            raise UnknownModel(
                str(name),
                found=f"no model of that name in {models}",
                expected=", ".join(sorted(map(str, others))[:8]) or "a model that Ollama has",
                hint="see `ollama ls`; set OLLAMA_MODELS if Ollama keeps its models elsewhere",
            )
    return _read(path, name)


def _read(path: Path, name: Name) -> Manifest:
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ValueError("a file far larger than any manifest")
        data = json.loads(path.read_bytes())
        config, layers = _layer(data["config"]), tuple(_layer(x) for x in data["layers"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise InvalidFile(
            str(path),
            found=(e.strerror or str(e)) if isinstance(e, OSError) else f"{type(e).__name__}: {e}",
            expected="a manifest of Ollama's",
            hint=f"`ollama rm {name}` and fetch the model again",
        ) from e
    return Manifest(name=name, path=path, config=config, layers=layers)


def _layer(data: Mapping[str, object]) -> Layer:
    digest, size = data["digest"], data.get("size", 0)
    found = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if found is None or not isinstance(size, int):
        raise ValueError(f"a layer with digest {digest!r:.80} and size {size!r:.20}")
    return Layer(media_type=str(data.get("mediaType")), sha256=found[1], size_bytes=size)


def names(models: Path) -> Iterator[tuple[Name, Path]]:
    """Every model, and its manifest's place; folders outside Ollama's rules are passed over."""
    root = models / "manifests"
    for path in sorted(root.glob("*/*/*/*")):
        host, namespace, model, tag = path.relative_to(root).parts
        name = Name(host=host, namespace=namespace, model=model, tag=tag)
        if _is_valid(name) and path.is_file():
            yield name, path


def manifests(models: Path) -> Iterator[Manifest]:
    """Every manifest of the store.

    Raises:
        InvalidFile: one cannot be read, so what it needs is not known.
    """
    for name, path in names(models):
        yield _read(path, name)


def weights(models: Path, text: str) -> tuple[Manifest, Path]:
    """The model called ``text`` and its GGUF file.

    Raises:
        UsageError, UnknownModel: there is none of that name.
        InvalidFile: it has no weights of its own here, or a LoRA adapter on top of them.
    """
    manifest = read_manifest(models, parse_name(text))
    layer = manifest.layer(MODEL_LAYER)
    if layer is None:
        raise InvalidFile(
            str(manifest.path),
            found="a model without a file of weights (one of Ollama's cloud, or of MLX tensors)",
            expected="one with a GGUF file",
            hint="choose another tag; see `ollama ls`",
        )
    if manifest.layer(ADAPTER_LAYER) is not None:
        raise InvalidFile(
            str(manifest.path),
            found="weights with a LoRA adapter on top",
            expected="weights alone",
            hint="import the model that it was made from, and merge the adapter",
        )
    path = layer.path(models)
    if not path.exists():
        raise InvalidFile(
            str(path),
            found="no file",
            expected=f"the weights of {manifest.name}",
            hint=f"`ollama pull {manifest.name}` fetches what is missing",
        )
    return manifest, path
