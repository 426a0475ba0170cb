"""Bring a model to an Ollama, by the way that is open, and take it back.

By hand, where the store is within reach: linked, no byte twice. Over the API, where it is not
(another machine, another user's service) and copies were allowed: Ollama then keeps the upload and
what it makes of it, until it prunes at its next start.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qwharf.artifacts import ollama_models
from qwharf.artifacts.store import Store
from qwharf.artifacts.uses import Placed, Records
from qwharf.errors import Conflict, CopyNeeded, EngineError, QwharfError
from qwharf.platforms import ollama_process, ollama_store
from qwharf.platforms.base import Step, Tell
from qwharf.platforms.ollama_api import Ollama
from qwharf.platforms.ollama_store import Needed, model_of, name_of
from qwharf.platforms.placement import (
    Placement,
    Source,
    existing,
    hashed,
    may_write,
    share_or_copy,
    sources,
)
from qwharf.platforms.service_http import is_local
from qwharf.types import DeploymentSpec

PLATFORM = "ollama"
LOCK = "uses-ollama"
"""Of our store: one at a time places or takes back."""


class Shelf:
    """The models of ours that an Ollama has.

    Args:
        store: ours.
        api: the Ollama.
    """

    def __init__(self, store: Store, api: Ollama) -> None:
        self.store = store
        self.records = Records(store.root)
        self.api = api

    def record(self, spec: DeploymentSpec) -> Placed | None:
        """What was placed for ``spec``."""
        return self.records.read(PLATFORM, spec.name)

    def holds(self, spec: DeploymentSpec) -> bool:
        """Whether Ollama has the model, and it is still the one that was placed.

        Raises:
            EngineError: Ollama does not answer.
        """
        placed = self.record(spec)
        return placed is not None and self._is_ours(placed, self.api)

    def _is_ours(self, placed: Placed, api: Ollama) -> bool:
        listed = api.listed(str(ollama_models.parse_name(placed.model)))
        return listed is not None and listed.get("digest") == placed.digest

    # --------------------------------------------------------------------------------- bringing

    def bring(self, spec: DeploymentSpec, tell: Tell) -> None:
        """Make Ollama know the model. Doing it twice is doing it once.

        Raises:
            CopyNeeded: that would cost a copy that was not allowed.
            Conflict: something else has its name, or another deployment stands against it.
            StorageError, EngineError: the disk, or Ollama, refuses.
        """
        with self._alone(tell):
            source = _weights(hashed(self.store, spec, tell), spec)
            before = self.record(spec)
            if before is not None and before.url not in (None, self.api.url):
                self._delete(before)  # Ollama has moved
                before = self.record(spec)
            models = folder_of(self.api)
            if models is None:
                reason = f"Ollama's store lies on another machine ({self.api.url})"
            elif reason := _closed(models):
                pass
            elif before is not None and before.url is not None:
                reason = "it was handed over before"
            elif self._link(spec, models, source, tell):
                return
            else:
                reason = f"the Ollama at {self.api.url} does not use the store {models}"
            self._hand_over(spec, source, reason, tell)

    def _alone(self, tell: Tell) -> contextlib.AbstractContextManager[None]:
        return self.store.working_on(LOCK, lambda: tell("waiting for another deployment's turn"))

    def _link(self, spec: DeploymentSpec, models: Path, source: Source, tell: Tell) -> bool:
        """Place the model by hand; whether Ollama then sees it."""
        ollama_store.refuse_rivals(models, spec, source.sha256)
        files = ollama_store.layout(models, spec, source, license_of(spec))
        digest = hashlib.sha256(files.manifest).hexdigest()
        placed = _placed(spec, root=models, digest=digest)
        placement = Placement(self.records, placed, owner="Ollama", may_copy=spec.may_copy)
        needed, tidy = Needed(), ollama_store.tidy(models)
        try:
            how = ollama_store.place(placement, source, files)
            seen = self._is_ours(placed, self.api)
        except BaseException:
            if placement.before is None:
                placement.take_back(needed, tidy)
            raise
        if not seen:
            placement.take_back(needed, tidy)
            return False
        placement.settle(needed, tidy)
        tell(f"the weights in Ollama's store: {how}")
        return True

    def _hand_over(self, spec: DeploymentSpec, source: Source, reason: str, tell: Tell) -> None:
        before = self.record(spec)
        body = create_body(spec, source)
        asked = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        listed = self.api.listed(str(name_of(spec)))
        if listed is not None:
            if before is None or listed.get("digest") != before.digest:
                raise Conflict(
                    model_of(spec),
                    found="a model of that name in Ollama that qwharf did not make",
                    hint="deploy under another name: `--name`",
                )
            if before.asked == asked:
                return
        if not spec.may_copy:
            raise CopyNeeded(
                str(spec.artifact_path),
                found=reason,
                expected="leave to hand Ollama a copy over its API",
                hint="allow it with `--copy`; Ollama keeps the upload, and what it makes of it, "
                "until it is started again",
                copy_bytes=2 * source.size_bytes,
            )
        if not self.api.has_blob(source.sha256):
            tell(f"handing {source.size_bytes / 1e9:.2f} GB to {self.api.url}")
            self.api.put_blob(source.sha256, source.path)
        tell("Ollama makes a model of it")
        self.api.create(body)
        listed = self.api.listed(str(name_of(spec))) or {}
        placed = _placed(spec, url=self.api.url, digest=str(listed.get("digest")))
        self.records.write(replace(placed, asked=asked))

    # ------------------------------------------------------------------------------- taking back

    def take_back(self, spec: DeploymentSpec) -> None:
        """Unload the model and remove what was placed; nothing else, and never twice.

        Raises:
            StorageError: files of ours cannot be removed.
        """
        placed = self.records.read_or_drop(PLATFORM, spec.name)
        if placed is None:
            return
        if placed.url is not None:
            self._delete(placed)
            return
        with contextlib.suppress(EngineError):
            if self._is_ours(placed, self.api):
                self.api.unload(placed.model)
        models = placed.root or ollama_models.models_folder()
        with self._alone(lambda _: None):
            placement = Placement(self.records, placed, owner="Ollama", may_copy=False)
            placement.take_back(Needed(), ollama_store.tidy(models))

    def _delete(self, placed: Placed) -> None:
        """Delete what was handed over; where Ollama cannot be reached, the record of it stays."""
        assert placed.url is not None  # noqa: S101 - the caller looked
        api = Ollama(placed.url)
        with contextlib.suppress(EngineError):
            if self._is_ours(placed, api):
                api.unload(placed.model)
                api.delete(placed.model)
            self.records.forget(placed)

    def is_empty(self) -> bool:
        """Whether nothing of ours is left in any Ollama."""
        return not any(self.records.all(PLATFORM))


def _placed(
    spec: DeploymentSpec, *, digest: str, root: Path | None = None, url: str | None = None
) -> Placed:
    return Placed(
        platform=PLATFORM,
        deployment=spec.name,
        artifact_id=spec.artifact_id,
        model=model_of(spec),
        root=root,
        url=url,
        digest=digest,
    )


def folder_of(api: Ollama) -> Path | None:
    """The store of that server, by its own environment, else by ours; ``None``: out of reach."""
    if not is_local(api.url):
        return None
    found = ollama_process.environment(ollama_process.listener(api.url))
    if found is not None and ("OLLAMA_MODELS" in found or "HOME" in found):
        return ollama_models.models_folder(found)
    return ollama_models.models_folder()


def _closed(models: Path) -> str:
    """Why nothing can be placed in the store ``models``; empty: it can."""
    place = existing(models / "blobs")
    return "" if may_write(place) else f"Ollama's store {models} may not be written to"


def _weights(found: Sequence[Source], spec: DeploymentSpec) -> Source:
    """The GGUF file among the artifact's."""
    return next((s for s in found if s.name == spec.artifact_path.name), found[0])


def license_of(spec: DeploymentSpec) -> str | None:
    """The licence's text, else its name as the file has it."""
    from qwharf.formats.gguf import read_gguf

    with contextlib.suppress(OSError, UnicodeDecodeError):
        return (spec.artifact_path.parent / "LICENSE").read_text("utf-8")
    try:
        told = read_gguf(spec.artifact_path).metadata.get("general.license")
    except QwharfError:
        return None
    return told if isinstance(told, str) else None


def create_body(spec: DeploymentSpec, source: Source) -> dict[str, Any]:
    """What ``/api/create`` is asked."""
    body = {
        "model": model_of(spec),
        "files": {"model.gguf": f"sha256:{source.sha256}"},
        "parameters": ollama_store.parameters(spec),
        "stream": True,
    }
    license = license_of(spec)
    return {**body, "license": license} if license else body


# ----------------------------------------------------------------------------------- beforehand


def steps(store: Store, api: Ollama, spec: DeploymentSpec) -> list[Step]:
    """What :meth:`Shelf.bring` would do."""
    source = _weights(sources(store, spec), spec)
    models = folder_of(api)
    if models is None or _closed(models):
        blob = f"POST {api.url}/api/blobs/sha256:{source.sha256}"
        create = f"POST {api.url}/api/create"
        return [
            Step(what="copy", where=blob, content=str(source.path)),
            Step(what="request", where=create, content=create_body(spec, source)),
        ]
    files = ollama_store.layout(models, spec, source, license_of(spec))
    way = share_or_copy(source.path, models)
    found = [Step(what=way, where=str(files.weights), content=str(source.path))]
    return found + [
        Step(what="write", where=str(path), content=_readable(data))
        for path, data in (*files.contents.items(), (files.manifest_path, files.manifest))
    ]


def _readable(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode("utf-8", "replace")
