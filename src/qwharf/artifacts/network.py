"""HTTP towards hubs: what to retry, how long to wait, how a refusal reads, where tokens may go."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Protocol

from qwharf import __version__
from qwharf.errors import NetworkError

if TYPE_CHECKING:
    import httpx2

MAX_REDIRECTS = 6
SECRET_HEADERS = frozenset({"authorization", "cookie"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class Stopped(Exception):
    """The work was given up because something else failed or the user stopped it."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How often and how patiently a request is repeated. Times in seconds."""

    attempts: int = 6
    """Failures in a row, without a byte of progress in between, until it is given up."""
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    longest_retry_after_s: float = 600.0
    """A server that asks for more patience than this is told about instead of waited for."""

    def backoff_s(self, failures: int) -> float:
        """How long to wait after that many failures in a row."""
        return float(min(self.longest_wait_s, self.first_wait_s * 2 ** (failures - 1)))

    def pause(self, stop: threading.Event, seconds: float) -> None:
        """Wait, unless told to stop."""
        if stop.wait(seconds):
            raise Stopped


class Site(Protocol):
    """What errors need to know of a hub."""

    @property
    def title(self) -> str:
        """Its name for people."""

    @property
    def endpoint(self) -> str:
        """Its base URL."""

    def login_hint(self, repo_id: str) -> str:
        """What to do when it wants to know who asks."""

    def unreachable_hint(self) -> str:
        """What to do when it cannot be reached."""


def user_agent() -> str:
    """What we call ourselves; nothing about the machine or its user."""
    return f"qwharf/{__version__}"


def offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` forbids to use the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def is_transient(status: int) -> bool:
    """Whether the same request may succeed later."""
    return status in _AGAIN


def retry_after_s(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that the server asks us to wait (RFC 9110 10.2.3; or ``RateLimit: …;t=<s>``)."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:12]), 10**9))
    if text:
        with contextlib.suppress(ValueError, OverflowError, OSError):
            when = parsedate_to_datetime(text).timestamp()
            return max(0.0, when - (time.time() if now is None else now))
    for part in headers.get("ratelimit", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == "t" and value.isascii() and value.isdigit():
            return float(min(int(value[:12]), 10**9))
    return None


def plain(url: str) -> str:
    """``url`` without its query, which may be a signature."""
    return url.split("?", 1)[0]


def refusal(
    site: Site, repo_id: str, url: str, status: int, headers: Mapping[str, str]
) -> NetworkError:
    """A final answer that is not what we asked for."""
    code = headers.get("x-error-code", "")
    message = " ".join(headers.get("x-error-message", "").split())[:200]
    expected, hint = "", ""
    if status in (401, 403) and code != "RepoNotFound":
        hint = site.login_hint(repo_id)
    elif status == 404 or code == "RepoNotFound":
        expected = "a repository, revision and file that exist"
        hint = (
            f"see {site.endpoint}/{repo_id} in a browser; a private repository needs a token: "
            + site.login_hint(repo_id)
        )
    elif status == 429:
        wait = retry_after_s(headers)
        hint = f"{site.title} asks to wait" + (f" {wait:.0f} seconds" if wait else "")
        hint += "; run the same command then, it goes on where it stopped"
    elif status >= 500:
        hint = f"{site.title} has trouble; run the same command later, it goes on"
    else:
        hint = f"see {site.endpoint}/{repo_id} in a browser"
    return NetworkError(
        repo_id,
        found=f"HTTP {status}{f' ({code})' if code else ''}{f': {message}' if message else ''}",
        expected=expected,
        hint=hint,
        url=plain(url),
        status=status,
    )


def unreachable(site: Site, repo_id: str, url: str, error: Exception | str) -> NetworkError:
    """No answer at all, or one that broke off too often."""
    text = error if isinstance(error, str) else str(error) or type(error).__name__
    return NetworkError(
        repo_id,
        found=f"{text} ({plain(url)})",
        expected=f"an answer of {site.title}",
        hint=site.unreachable_hint(),
        url=plain(url),
        status=None,
    )


def new_client() -> httpx2.Client:
    """A client that follows no redirect by itself and asks for bytes as they are."""
    import httpx2

    return httpx2.Client(
        follow_redirects=False,
        timeout=httpx2.Timeout(30.0, connect=15.0, pool=None),
        headers={"user-agent": user_agent(), "accept-encoding": "identity"},
    )


@contextlib.contextmanager
def get(client: httpx2.Client, url: str, headers: Mapping[str, str]) -> Iterator[httpx2.Response]:
    """GET with redirects followed; the body is left to be streamed.

    Secrets in ``headers`` go to the origin of ``url`` only, and never from https to http.

    Raises:
        httpx2.TransportError: no (whole) answer.
        NetworkError: redirects without end, or to something that is not http(s).
    """
    import httpx2

    at = httpx2.URL(url)
    first = at
    where = ""
    for _ in range(MAX_REDIRECTS + 1):
        allowed = {
            k: v
            for k, v in headers.items()
            if k.lower() not in SECRET_HEADERS or _origin(at) == _origin(first)
        }
        with client.stream("GET", at, headers=allowed) as response:
            where = response.headers.get("location", "")
            if response.status_code not in _REDIRECTS or not where:
                yield response
                return
        try:
            target = at.join(where)
        except httpx2.InvalidURL:
            break
        if target.scheme not in ("http", "https") or (
            at.scheme == "https" and target.scheme == "http"
        ):
            break
        at = target
    raise NetworkError(
        plain(url),
        found=f"a redirect to {plain(where)}, from {plain(str(at))}",
        expected=f"at most {MAX_REDIRECTS} redirects, none of them to an insecure address",
        hint="check HF_ENDPOINT or MODELSCOPE_ENDPOINT, and proxies on the way",
        url=plain(url),
        status=None,
    )


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
