"""Hugging Face: what a repository holds, and where its files are.

Listing goes through ``huggingface_hub``. Its downloads do not: since it gives every process a
temporary file of its own (``file_download._download_to_tmp_and_move``), an interrupted one starts
anew, and here a killed pull of 60 GB must go on where it stopped.
"""

from __future__ import annotations

import os
import threading
from typing import Any
from urllib.parse import quote

from qwharf import __version__
from qwharf.artifacts import network
from qwharf.artifacts.listing import Listing, check_repo_id, check_revision, entry_of
from qwharf.artifacts.network import Policy
from qwharf.errors import UsageError
from qwharf.types import Hub

DEFAULT_ENDPOINT = "https://huggingface.co"
TIMEOUT_S = 30.0


class HuggingFace:
    """The hub at ``HF_ENDPOINT`` (default: huggingface.co), asked with ``HF_TOKEN`` if set."""

    name: Hub = "hf"
    title = "Hugging Face"
    forgets = False
    default_revision = "main"

    def __init__(self) -> None:
        # huggingface_hub tells the hub about installed frameworks unless told not to.
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        self.endpoint = check_endpoint(
            "HF_ENDPOINT", os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT
        )
        self._token: str | None = None
        self._token_known = False

    @property
    def token(self) -> str | None:
        """``HF_TOKEN``, or what ``hf auth login`` stored."""
        if not self._token_known:
            from huggingface_hub import get_token

            self._token = get_token()
            self._token_known = True
        return self._token

    def headers(self) -> dict[str, str]:
        """Who asks."""
        return {"authorization": f"Bearer {self.token}"} if self.token else {}

    def url(self, listing: Listing, path: str) -> str:
        """Where a file of ``listing`` is fetched from; answers with a redirect for large ones."""
        return f"{self.endpoint}/{listing.repository}/resolve/{listing.revision}/{quote(path)}"

    def listing(self, repo_id: str, revision: str | None, *, policy: Policy) -> Listing:
        """All files of a model repository at the commit that ``revision`` names now.

        Raises:
            NetworkError: unreachable, refused, not found, or not the API of a hub.
        """
        import httpx2
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        requested = check_revision(revision or self.default_revision)
        check_repo_id(repo_id)
        url = f"{self.endpoint}/api/models/{repo_id}/revision/{quote(requested, safe='')}"
        api = HfApi(
            endpoint=self.endpoint,
            token=self.token or False,
            library_name="qwharf",
            library_version=__version__,
        )
        stop = threading.Event()
        failures = 0
        while True:
            wait: float | None = None
            try:
                info = api.model_info(
                    repo_id, revision=requested, files_metadata=True, timeout=TIMEOUT_S
                )
                return self._listing(info, repo_id, requested, url)
            except OfflineModeIsEnabled as error:
                raise network.unreachable(self, repo_id, url, "offline mode") from error
            except HfHubHTTPError as error:
                response = error.response
                problem = network.refusal(
                    self, repo_id, url, response.status_code, response.headers
                )
                if not network.is_transient(response.status_code):
                    raise problem from error
                wait = network.retry_after_s(response.headers)
            except httpx2.TransportError as error:
                problem = network.unreachable(self, repo_id, url, error)
                problem.__cause__ = error
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise network.unreachable(
                    self, repo_id, url, f"an answer that is not a hub's: {str(error)[:120]}"
                ) from error
            failures += 1
            if failures >= policy.attempts or (wait or 0) > policy.longest_retry_after_s:
                raise problem
            policy.pause(stop, policy.backoff_s(failures) if wait is None else wait)

    def _listing(self, info: Any, repo_id: str, requested: str, url: str) -> Listing:
        commit = info.sha
        if not isinstance(commit, str) or not commit.isalnum() or not commit.isascii():
            raise ValueError(f"commit {commit!r:.60}")
        if info.siblings is None:
            raise ValueError("no list of files")
        files = tuple(
            entry_of(
                s.rfilename,
                s.lfs.size if s.lfs else s.size,
                sha256=s.lfs.sha256 if s.lfs else None,
                git_sha1=None if s.lfs else s.blob_id,
            )
            for s in info.siblings
        )
        return Listing(
            hub=self.name,
            repository=repo_id,
            endpoint=self.endpoint,
            requested=requested,
            revision=commit,
            files=tuple(sorted(files, key=lambda f: f.path)),
        )

    def login_hint(self, repo_id: str) -> str:
        """How to show who asks."""
        page = f"{self.endpoint}/{repo_id}"
        if self.token:
            return f"accept the terms on {page} with the account of your HF_TOKEN"
        return f"accept the terms on {page}, then set HF_TOKEN to a token of {self.endpoint}" + (
            "/settings/tokens"
        )

    def unreachable_hint(self) -> str:
        """What else there is."""
        return (
            "check the connection (proxies: HTTPS_PROXY), name a mirror with HF_ENDPOINT, or try "
            "`qwharf pull MODEL --from modelscope`; what was fetched is kept"
        )


def check_endpoint(variable: str, value: str) -> str:
    """A base URL without its final slash.

    Raises:
        UsageError: not http(s), or with a password.
    """
    if not value.startswith(("https://", "http://")) or any(c.isspace() for c in value):
        raise UsageError(variable, found=value, expected="a URL such as https://hub.example.org")
    if "@" in value.split("/", 3)[2]:  # it would be written into pins and records
        raise UsageError(
            variable,
            found="a URL with a password in it",
            expected="one without",
            hint="give a token with HF_TOKEN or MODELSCOPE_API_TOKEN",
        )
    return value.rstrip("/")
