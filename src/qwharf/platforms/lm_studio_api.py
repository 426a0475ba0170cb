"""LM Studio's REST API v1, as far as deploying needs it (its documentation; not seen running)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwharf.artifacts import lm_studio_models
from qwharf.errors import EngineError, UsageError
from qwharf.platforms.service_http import Service, words

DEFAULT_PORT = 1234
URL_VARIABLE = "LMSTUDIO_URL"
TOKEN_VARIABLE = "LM_API_TOKEN"  # noqa: S105 - a name
"""LM Studio's own name for it."""
LOAD_SECONDS = 1800.0
START_HINT = "start it: `lms server start`, or in the application under Developer"
OLDEST = "0.4"


def url() -> str:
    """Where LM Studio's server listens: as told, else by its own configuration.

    Raises:
        UsageError: the variable holds no URL.
    """
    told = os.environ.get(URL_VARIABLE, "").strip().rstrip("/").removesuffix("/v1")
    if told and not told.startswith(("http://", "https://")):
        raise UsageError(URL_VARIABLE, found=told, expected="a URL such as http://127.0.0.1:1234")
    return told or f"http://127.0.0.1:{_port()}"


def _internal(name: str) -> Mapping[str, Any]:
    path = lm_studio_models.home() / ".internal" / name
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _port() -> int:
    port = _internal("http-server-config.json").get("port")
    return port if isinstance(port, int) and 0 < port < 65536 else DEFAULT_PORT


def installed() -> Path | None:
    """The program of an LM Studio that was run here once; it is not started."""
    for name in ("llmster-install-location.json", "app-install-location.json"):
        path = _internal(name).get("path")
        if isinstance(path, str) and Path(path).exists():
            return Path(path)
    return None


def version() -> str | None:
    """What a running LM Studio says of itself on its own port (not the server's)."""
    port = _internal("http-server.json").get("port")
    if not isinstance(port, int):
        return None
    at = Service("LM Studio", f"http://127.0.0.1:{port}", absent="")
    told = at.answers("/lms-status")
    found = told.get("version") if isinstance(told, dict) else None
    return found if isinstance(found, str) else None


class LmStudio:
    """The server at ``url``. Every method raises :class:`EngineError`."""

    def __init__(self, url: str) -> None:
        self.url = url
        token = os.environ.get(TOKEN_VARIABLE)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = Service("LM Studio", url, absent=START_HINT, headers=headers)

    def is_there(self) -> bool:
        """Whether an LM Studio answers."""
        told = self._http.answers("/lmstudio-greeting")
        return isinstance(told, dict) and told.get("lmstudio") is True

    def models(self) -> tuple[Mapping[str, Any], ...]:
        """Every model that it has, loaded or not."""
        told = self._ask("GET", "/api/v1/models")
        models = told.get("models")
        if not isinstance(models, list):
            raise EngineError(
                "LM Studio",
                found=words(told) or "no list of models at /api/v1/models",
                expected=f"its REST API v1, which {OLDEST} has",
                hint=f"update LM Studio to {OLDEST} or newer",
            )
        return tuple(m for m in models if isinstance(m, dict))

    def load(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Load an instance of a model; what came of it."""
        return self._ask("POST", "/api/v1/models/load", body, seconds=LOAD_SECONDS)

    def unload(self, instance: str) -> None:
        """Take an instance out of memory; it need not be there."""
        try:
            self._ask("POST", "/api/v1/models/unload", {"instance_id": instance}, seconds=60.0)
        except EngineError as e:
            if e.facts.get("status") not in (400, 404):
                raise

    def _ask(
        self, method: str, path: str, body: Any = None, *, seconds: float = 15.0
    ) -> Mapping[str, Any]:
        told = self._http.ask(method, path, body, seconds=seconds)
        if not isinstance(told, dict):
            raise EngineError(
                "LM Studio",
                found=f"no JSON from {method} {self.url}{path}",
                expected="LM Studio's answer",
                hint="does another program listen there?",
            )
        if "error" in told:  # its errors may come with status 200
            raise EngineError(
                "LM Studio", found=words(told), hint=f"is it {OLDEST} or newer?", status=400
            )
        return told
