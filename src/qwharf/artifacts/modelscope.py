"""ModelScope: the same models, reachable where Hugging Face is not.

Its HTTP interface, as its own client (``modelscope_hub`` 0.5.1, ``_legacy_api.py``) uses it:

- ``GET /api/v1/models/<id>/revisions`` -> ``Data.RevisionMap.{Branches,Tags}[].Revision``
- ``GET /api/v1/models/<id>/repo/files?Revision=&Recursive=`` -> ``Data.Files[]`` with ``Path``,
  ``Size``, ``Sha256``, ``Type`` (``tree`` or ``blob``); silently cut off at 3,000 entries
- ``GET /api/v1/models/<id>/repo?Revision=&FilePath=`` -> the file, or a redirect to it

Answers are ``{"Code": 200, "Success": true, "Data": …}``. The token goes as a cookie and as a
bearer, because older and newer parts of it look at one or the other.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from qwharf.artifacts import network
from qwharf.artifacts.hub import check_endpoint
from qwharf.artifacts.listing import (
    Listing,
    RemoteEntry,
    check_repo_id,
    check_revision,
    entry_of,
    fingerprint,
)
from qwharf.artifacts.network import Policy
from qwharf.errors import NetworkError
from qwharf.types import Hub

DEFAULT_ENDPOINT = "https://www.modelscope.cn"
MAX_ANSWER_BYTES = 32 << 20
MOST_FILES = 3_000


class ModelScope:
    """The hub at ``MODELSCOPE_ENDPOINT``, asked with ``MODELSCOPE_API_TOKEN`` if set."""

    name: Hub = "modelscope"
    title = "ModelScope"
    forgets = True
    default_revision = "master"

    def __init__(self) -> None:
        self.endpoint = check_endpoint(
            "MODELSCOPE_ENDPOINT", os.environ.get("MODELSCOPE_ENDPOINT") or DEFAULT_ENDPOINT
        )
        self.token = os.environ.get("MODELSCOPE_API_TOKEN") or None

    def headers(self) -> dict[str, str]:
        """Who asks."""
        if not self.token:
            return {}
        return {"authorization": f"Bearer {self.token}", "cookie": f"m_session_id={self.token}"}

    def url(self, listing: Listing, path: str) -> str:
        """Where a file of ``listing`` is fetched from."""
        branch = listing.revision.rpartition("@")[0] or listing.revision
        return (
            f"{self.endpoint}/api/v1/models/{listing.repository}/repo"
            f"?Revision={quote(branch, safe='')}&FilePath={quote(path, safe='')}"
        )

    def listing(self, repo_id: str, revision: str | None, *, policy: Policy) -> Listing:
        """All files of a model repository on a branch or tag, as they are now.

        Raises:
            NetworkError: unreachable, refused, not found, or not the API of ModelScope.
        """
        requested = check_revision((revision or self.default_revision).partition("@")[0])
        base = f"{self.endpoint}/api/v1/models/{check_repo_id(repo_id)}"
        where = f"{base}/repo/files?Revision={quote(requested, safe='')}&Recursive=True"
        try:
            data = self._json(where, repo_id, policy)
        except NetworkError as error:
            if revision is not None and error.facts.get("status") == 404:
                error.expected = self._revisions(base, repo_id, policy) or error.expected
            raise
        try:
            rows = data["Files"] if isinstance(data, Mapping) else data
            if not isinstance(rows, list):
                raise ValueError("no list of files")
            if len(rows) >= MOST_FILES:
                raise ValueError(f"{len(rows)} files: the list may be cut off")
            files = tuple(sorted(_entries(rows), key=lambda f: f.path))
        except (ValueError, TypeError, KeyError) as error:
            raise network.unreachable(
                self, repo_id, where, f"an answer that is not ModelScope's: {error}"
            ) from error
        return Listing(
            hub=self.name,
            repository=repo_id,
            endpoint=self.endpoint,
            requested=requested,
            revision=f"{requested}@{fingerprint(files)}",
            files=files,
        )

    def _revisions(self, base: str, repo_id: str, policy: Policy) -> str:
        """The branches and tags that there are, for an error."""
        try:
            data = self._json(f"{base}/revisions", repo_id, policy)
            kinds = data["RevisionMap"]
            names = [r["Revision"] for k in ("Branches", "Tags") for r in kinds.get(k) or ()]
        except (NetworkError, TypeError, KeyError, AttributeError):
            return ""
        return "one of " + ", ".join(str(n) for n in names[:12])

    def _json(self, url: str, repo_id: str, policy: Policy) -> Any:
        """``Data`` of an answer."""
        import json

        import httpx2

        stop = threading.Event()
        failures = 0
        while True:
            wait: float | None = None
            try:
                with (
                    network.new_client() as client,
                    network.get(client, url, self.headers()) as answer,
                ):
                    body = bytearray()
                    for piece in answer.iter_raw():
                        body += piece
                        if len(body) > MAX_ANSWER_BYTES:
                            raise ValueError("an answer without end")
                if answer.status_code == 200:
                    return _data(json.loads(bytes(body)), self, repo_id, url)
                problem = network.refusal(self, repo_id, url, answer.status_code, answer.headers)
                if not network.is_transient(answer.status_code):
                    raise problem
                wait = network.retry_after_s(answer.headers)
            except httpx2.TransportError as error:
                problem = network.unreachable(self, repo_id, url, error)
                problem.__cause__ = error
            except (ValueError, RecursionError) as error:
                raise network.unreachable(
                    self, repo_id, url, f"an answer that is not ModelScope's: {str(error)[:120]}"
                ) from error
            failures += 1
            if failures >= policy.attempts or (wait or 0) > policy.longest_retry_after_s:
                raise problem
            policy.pause(stop, policy.backoff_s(failures) if wait is None else wait)

    def login_hint(self, repo_id: str) -> str:
        """How to show who asks."""
        return f"set MODELSCOPE_API_TOKEN to a token of {self.endpoint}/my/myaccesstoken"

    def unreachable_hint(self) -> str:
        """What else there is."""
        return (
            "check the connection (proxies: HTTPS_PROXY), or try `qwharf pull MODEL --from hf`; "
            "what was fetched is kept"
        )


def _data(answer: Any, site: ModelScope, repo_id: str, url: str) -> Any:
    if not isinstance(answer, dict) or "Code" not in answer:
        raise ValueError("no Code")
    code = answer["Code"]
    if code != 200:  # refusals also come as HTTP 200
        status = code if isinstance(code, int) and 400 <= code < 600 else 404
        message = str(answer.get("Message", ""))
        raise network.refusal(site, repo_id, url, status, {"x-error-message": message})
    return answer.get("Data")


def _entries(rows: list[Any]) -> list[RemoteEntry]:
    return [
        entry_of(row.get("Path"), row.get("Size"), sha256=row.get("Sha256"))
        for row in rows
        if isinstance(row, Mapping) and row.get("Type") != "tree"
    ]
