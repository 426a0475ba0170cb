"""Ollama's native API, as far as deploying needs it (0.33, seen; the exchanges are recorded)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwharf.errors import EngineError
from qwharf.platforms.service_http import Service

LOAD_SECONDS = 1800.0
"""For a model to be read from a slow disk; Ollama itself gives up where nothing goes on."""
UPLOAD_SECONDS = 600.0
"""Without a byte going through."""
START_HINT = "start it: `ollama serve`, or the Ollama application"


class Ollama:
    """The API of the Ollama at ``url``. Every method raises :class:`EngineError`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = Service("Ollama", url, absent=START_HINT)

    def version(self) -> str | None:
        """Its version; ``None`` where no Ollama answers."""
        found = self._http.answers("/api/version")
        version = found.get("version") if isinstance(found, dict) else None
        return version if isinstance(version, str) else None

    def show(self, name: str) -> Mapping[str, Any] | None:
        """What it knows of a model; ``None``: it does not have it."""
        try:
            return _mapping(self._http.ask("POST", "/api/show", {"model": name}))
        except EngineError as e:
            if e.facts.get("status") == 404:
                return None
            raise

    def listed(self, name: str) -> Mapping[str, Any] | None:
        """Its entry in the list of models."""
        return _entry(self._http.ask("GET", "/api/tags"), name)

    def loaded(self) -> tuple[Mapping[str, Any], ...]:
        """The models in its memory."""
        return _entries(self._http.ask("GET", "/api/ps"))

    def loaded_as(self, name: str) -> Mapping[str, Any] | None:
        """The entry of one of them."""
        return _entry(self._http.ask("GET", "/api/ps"), name)

    def load(self, body: Mapping[str, Any]) -> None:
        """Load a model and keep it."""
        self._http.ask("POST", "/api/generate", body, seconds=LOAD_SECONDS)

    def unload(self, name: str) -> None:
        """Take a model out of memory; it need not be there."""
        try:
            body = {"model": name, "keep_alive": 0, "stream": False}
            self._http.ask("POST", "/api/generate", body, seconds=60.0)
        except EngineError as e:
            if e.facts.get("status") != 404:
                raise

    def delete(self, name: str) -> None:
        """Forget a model, with every content that no other one needs."""
        try:
            self._http.ask("DELETE", "/api/delete", {"model": name}, seconds=60.0)
        except EngineError as e:
            if e.facts.get("status") != 404:
                raise

    def has_blob(self, sha256: str) -> bool:
        """Whether it has a content already."""
        try:
            self._http.ask("HEAD", f"/api/blobs/sha256:{sha256}")
        except EngineError as e:
            if e.facts.get("status") == 404:
                return False
            raise
        return True

    def put_blob(self, sha256: str, file: Path) -> None:
        """Hand a content over; it is held against its hash there."""
        self._http.upload(f"/api/blobs/sha256:{sha256}", file, seconds=UPLOAD_SECONDS)

    def create(self, body: Mapping[str, Any]) -> None:
        """Make a model of contents that it has.

        An error comes as the last line, with HTTP status 200.
        """
        last: Any = None
        for last in self._http.lines("POST", "/api/create", body, seconds=LOAD_SECONDS):
            if isinstance(last, dict) and "error" in last:
                raise EngineError("Ollama", found=str(last["error"])[:500])
        if not isinstance(last, dict) or last.get("status") != "success":
            raise EngineError(
                "Ollama", found=f"an answer to /api/create that ends in {last!r:.80}", expected=""
            )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _entries(value: Any) -> tuple[Mapping[str, Any], ...]:
    models = value.get("models") if isinstance(value, dict) else None
    return tuple(m for m in models or () if isinstance(m, dict))


def _entry(value: Any, name: str) -> Mapping[str, Any] | None:
    wanted = name.casefold()
    return next((m for m in _entries(value) if str(m.get("name")).casefold() == wanted), None)
