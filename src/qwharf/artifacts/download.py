"""One file from a hub: resumed, bounded, verified.

The unfinished file is ``downloads/<hash>.part``, named by the content that it will be, so an
interrupted download can be resumed by any later command, whichever hub or revision offers the
same content. ``<hash>.json`` beside it remembers the entity tag of the answer that began it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from qwharf.artifacts import disk, network
from qwharf.artifacts.network import Policy, Site, Stopped
from qwharf.errors import ChecksumMismatch, NetworkError

if TYPE_CHECKING:
    import httpx2

CHUNK_BYTES = 1 << 20
CONTENT_ATTEMPTS = 2
"""How often a file is fetched from its first byte before its checksum is called wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """What to fetch, and what it must be."""

    repo_id: str
    path: str
    url: str
    size_bytes: int
    sha256: str | None
    git_sha1: str | None = None
    """git's object id of a blob: sha1 over ``blob <size>\\0`` and the bytes."""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The name of the unfinished file."""
        return self.sha256 or f"git-{self.git_sha1}"

    def digest(self) -> Digest:
        """A fresh running checksum of the content."""
        return Digest(self)


class Digest:
    """sha256 of what went by, and git's sha1 where that is what is known."""

    def __init__(self, download: Download) -> None:
        self.download = download
        self.sha256 = hashlib.sha256()
        self.sha1 = hashlib.sha1(b"blob %d\0" % download.size_bytes, usedforsecurity=False)

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes in."""
        self.sha256.update(data)
        if self.download.sha256 is None:
            self.sha1.update(data)

    def mismatch(self) -> tuple[str, str] | None:
        """``(found, expected)``, or ``None`` if the content is right."""
        wanted = self.download
        if wanted.sha256 is not None:
            found = self.sha256.hexdigest()
            return None if found == wanted.sha256 else (f"sha256 {found}", wanted.sha256)
        found = self.sha1.hexdigest()
        return None if found == wanted.git_sha1 else (f"git id {found}", str(wanted.git_sha1))


class Fetch:
    """Fetches one :class:`Download` into a ``.part`` file.

    Args:
        site: the hub, for errors.
        client: from :func:`network.new_client`; shared between threads.
        download: what.
        part: the unfinished file; its lock is held by the caller.
        policy: patience.
        stop: set by another thread to end this one.
        step: told the bytes gained, negative when a part had to be thrown away.
    """

    def __init__(
        self,
        site: Site,
        client: httpx2.Client,
        download: Download,
        part: Path,
        *,
        policy: Policy,
        stop: threading.Event,
        step: Callable[[int], None],
    ) -> None:
        self.site = site
        self.client = client
        self.download = download
        self.part = part
        self.note = part.with_suffix(".json")
        self.policy = policy
        self.stop = stop
        self.step = step
        self.failures = 0
        self.digest = download.digest()

    def run(self) -> str:
        """Fetch what is missing; the sha256 of the whole file.

        Raises:
            ChecksumMismatch: the hub's bytes are not the announced ones, twice; nothing is kept.
            NetworkError: given up; what was fetched is kept for the next time.
            OSError: the disk refuses; what was fetched is kept.
            Stopped: told to.
        """
        wrong = ("", "")
        for _ in range(CONTENT_ATTEMPTS):
            with self.part.open("r+b" if self.part.exists() else "x+b") as file:
                self._resume(file)
                while file.tell() < self.download.size_bytes:
                    self._attempt(file)
                disk.flush(file)
            mismatch = self.digest.mismatch()
            if mismatch is None:
                self.note.unlink(missing_ok=True)
                return self.digest.sha256.hexdigest()
            wrong = mismatch
            self.step(-self.download.size_bytes)
            self.part.unlink()
            self.note.unlink(missing_ok=True)
        raise ChecksumMismatch(
            f"{self.download.repo_id}: {self.download.path}",
            found=wrong[0],
            expected=wrong[1],
            hint=f"what {self.site.endpoint} sent is not what it announced (a proxy or mirror on "
            "the way?); nothing was kept: try again, or the other hub with `qwharf pull --from`",
            url=network.plain(self.download.url),
        )

    def _resume(self, file: BinaryIO) -> None:
        """Hash what is there already and go to its end."""
        self.digest = self.download.digest()
        while piece := file.read(CHUNK_BYTES):
            self._check_stop()
            self.digest.update(piece)
        if file.tell() > self.download.size_bytes:
            self._restart(file, report=False)
        self.step(file.tell())

    def _restart(self, file: BinaryIO, *, report: bool = True) -> None:
        if report:
            self.step(-file.tell())
        file.seek(0)
        file.truncate()
        self.digest = self.download.digest()

    def _attempt(self, file: BinaryIO) -> None:
        """One request; returns when more is needed or all is there."""
        import httpx2

        self._check_stop()
        offset = file.tell()
        headers = dict(self.download.headers)
        if offset:
            headers["range"] = f"bytes={offset}-"
            if tag := self._known_tag():
                headers["if-range"] = tag
        try:
            with network.get(self.client, self.download.url, headers) as response:
                if self._accept(response, file, offset):
                    self._body(response, file)
            if file.tell() < self.download.size_bytes and response.status_code in (200, 206):
                raise httpx2.RemoteProtocolError("the answer ended too early")
        except httpx2.TransportError as error:
            self._check_stop()
            if file.tell() > offset:
                self.failures = 0
            self._failed(error, None)

    def _accept(self, response: httpx2.Response, file: BinaryIO, offset: int) -> bool:
        """Whether the body is what comes next in ``file``."""
        status = response.status_code
        url = self.download.url
        if status == 200:
            if offset:  # the content changed, or the server knows no ranges
                self._restart(file)
            self._remember_tag(response)
            return True
        if status == 206:
            if _range_start(response.headers.get("content-range", "")) == offset:
                self._remember_tag(response)
                return True
            self._restart(file)
            self._failed("a part of the file that was not asked for", None)
            return False
        if status == 416:
            self._restart(file)
            self._failed("HTTP 416: the part is not one of this file", None)
            return False
        if network.is_transient(status):
            wait = network.retry_after_s(response.headers)
            error = network.refusal(self.site, self.download.repo_id, url, status, response.headers)
            self._failed(error, wait)
            return False
        raise network.refusal(self.site, self.download.repo_id, url, status, response.headers)

    def _body(self, response: httpx2.Response, file: BinaryIO) -> None:
        for piece in response.iter_raw():
            self._check_stop()
            if file.tell() + len(piece) > self.download.size_bytes:
                self._restart(file)
                raise NetworkError(
                    f"{self.download.repo_id}: {self.download.path}",
                    found="more bytes than were announced",
                    expected=f"{self.download.size_bytes} bytes",
                    hint="a proxy or mirror on the way? Check HF_ENDPOINT and MODELSCOPE_ENDPOINT",
                    url=network.plain(self.download.url),
                    status=response.status_code,
                )
            file.write(piece)
            self.digest.update(piece)
            self.failures = 0
            self.step(len(piece))

    def _failed(self, error: Exception | str, wait_s: float | None) -> None:
        """Wait before the next attempt, or give up."""
        self.failures += 1
        patience = self.policy.longest_retry_after_s
        if self.failures >= self.policy.attempts or (wait_s or 0) > patience:
            if isinstance(error, NetworkError):
                raise error
            raise network.unreachable(
                self.site, self.download.repo_id, self.download.url, error
            ) from (error if isinstance(error, Exception) else None)
        self.policy.pause(
            self.stop, self.policy.backoff_s(self.failures) if wait_s is None else wait_s
        )

    def _check_stop(self) -> None:
        if self.stop.is_set():
            raise Stopped

    # ------------------------------------------------------------------------ entity tags

    def _known_tag(self) -> str | None:
        """The strong tag of the answer that began the part, if the same host gave it."""
        with contextlib.suppress(OSError, ValueError):
            note: Any = json.loads(self.note.read_bytes())
            if isinstance(note, dict) and note.get("host") == urlsplit(self.download.url).netloc:
                tag = note.get("etag")
                return tag if isinstance(tag, str) and tag.startswith('"') else None
        return None

    def _remember_tag(self, response: httpx2.Response) -> None:
        tag = response.headers.get("etag", "")
        if not tag.startswith('"') or len(tag) > 1024 or tag == self._known_tag():
            return
        note = {
            "etag": tag,
            "host": urlsplit(self.download.url).netloc,
            "repository": self.download.repo_id,
            "path": self.download.path,
        }
        disk.write_json(self.note, note)


def _range_start(text: str) -> int | None:
    """The first byte's index of a ``Content-Range: bytes <first>-<last>/<total>``."""
    unit, _, rest = text.strip().partition(" ")
    first = rest.partition("-")[0].strip()
    return int(first) if unit == "bytes" and first.isascii() and first.isdigit() else None
