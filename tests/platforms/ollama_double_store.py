"""The store of an Ollama, for its double: written from the facts, and from them alone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Answer(Exception):
    """Ends a request with a status and a JSON body."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status
        self.body = {"error": error}


@dataclass
class Shelf:
    """``$OLLAMA_MODELS``."""

    root: Path

    def blob(self, digest: str) -> Path:
        return self.root / "blobs" / digest.replace(":", "-")

    def manifests(self) -> Iterator[tuple[str, Path]]:
        """Names in full, and where they stand; what is outside the rules is passed over."""
        root = self.root / "manifests"
        for path in sorted(root.glob("*/*/*/*")):
            host, space, model, tag = path.relative_to(root).parts
            ok = all(re.fullmatch(r"[A-Za-z0-9_][\w.-]{0,79}", p) for p in (space, model, tag))
            if ok and "." not in space and path.is_file():
                yield f"{host}/{space}/{model}:{tag}", path

    def find(self, name: str) -> tuple[str, Path]:
        wanted = full(name)
        for found, path in self.manifests():
            if found.casefold() == wanted.casefold():
                return found, path
        raise Answer(404, f"model '{short(wanted)}' not found")

    def read(self, path: Path) -> dict[str, Any]:
        try:
            return dict(json.loads(path.read_bytes()))
        except ValueError:
            raise Answer(500, "invalid character looking for beginning of object") from None

    def layer(self, manifest: Mapping[str, Any], kind: str) -> Path | None:
        for layer in manifest["layers"]:
            if layer["mediaType"].endswith(f".image.{kind}"):
                return self.blob(layer["digest"])
        return None

    def params(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        path = self.layer(manifest, "params")
        return dict(json.loads(path.read_bytes())) if path else {}

    def named(self, but: Path | None = None) -> set[str]:
        found = set()
        for _, path in self.manifests():
            if path != but:
                manifest = json.loads(path.read_bytes())
                found |= {x["digest"] for x in (manifest["config"], *manifest["layers"])}
        return found

    def delete(self, path: Path) -> None:
        manifest = self.read(path)
        rest = self.named(but=path)
        path.unlink()
        for layer in (manifest["config"], *manifest["layers"]):
            if layer["digest"] not in rest:
                self.blob(layer["digest"]).unlink(missing_ok=True)
        folder = path.parent
        with contextlib.suppress(OSError):
            while folder != self.root / "manifests":
                folder.rmdir()
                folder = folder.parent

    def prune(self) -> None:
        """At every start: what no manifest names, and strange names, if older than an hour."""
        try:
            named = self.named()
        except (ValueError, KeyError):
            return  # one manifest does not parse: nothing is pruned
        for path in (self.root / "blobs").glob("*"):
            old = time.time() - path.lstat().st_mtime > 3600
            if old and path.name.replace("-", ":", 1) not in named:
                path.unlink()

    def put(self, kind: str, data: bytes) -> dict[str, Any]:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.blob(digest).parent.mkdir(parents=True, exist_ok=True)
        self.blob(digest).write_bytes(data)
        media = "docker.container" if kind == "config" else "ollama"
        kind = "v1+json" if kind == "config" else kind
        return {
            "mediaType": f"application/vnd.{media}.image.{kind}",
            "digest": digest,
            "size": len(data),
        }


def full(name: str) -> str:
    *place, last = name.split("/")
    model, _, tag = last.partition(":")
    place = [*["registry.ollama.ai", "library"][: 2 - len(place)], *place]
    return f"{place[0]}/{place[1]}/{model}:{tag or 'latest'}"


def short(name: str) -> str:
    return name.removeprefix("registry.ollama.ai/").removeprefix("library/")
