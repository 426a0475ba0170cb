"""A hub on loopback: speaks what qwharf uses of Hugging Face and ModelScope, and can misbehave.

Large files (``.gguf``, ``.safetensors``) answer with a redirect to a second server, as the real
hubs' do. Every request is written down; faults are taken from a list, each for so many requests.
"""

from __future__ import annotations

import email.utils
import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".gguf", ".safetensors")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@dataclass
class Fault:
    """What goes wrong with the next ``times`` requests whose path contains ``match``."""

    match: str
    times: int = 1
    status: int | None = None
    """Answer this instead."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_after: int | None = None
    """Send so many bytes of the body, then drop the connection."""
    damage: bool = False
    """Send other bytes of the same length."""
    longer: bool = False
    """Send more bytes than there are."""
    ignore_range: bool = False
    shift_range: bool = False
    """Answer a range request with another range."""
    redirect: str | None = None
    pause_s: float = 0.0
    """Wait so long between pieces of 16 KiB."""
    server: str = "any"
    """``hub``, ``cdn`` or ``any``."""


@dataclass(frozen=True)
class Seen:
    server: str
    path: str
    headers: Mapping[str, str]
    status: int


class Hub:
    """Repositories as ``{repo: [(commit, {path: bytes}), …]}``, the last one being ``main``."""

    def __init__(self) -> None:
        self.repositories: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.gated: dict[str, str] = {}
        """Repository -> the token that opens it."""
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.sent_bytes = 0
        self.lock = threading.Lock()
        self.etags = True
        self.servers = {name: _Server(self, name) for name in ("hub", "cdn")}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.servers['hub'].server_port}"

    @property
    def cdn_url(self) -> str:
        return f"http://localhost:{self.servers['cdn'].server_port}"

    def add(self, repo: str, files: dict[str, bytes]) -> str:
        """Commit ``files``; the new commit."""
        blob = json.dumps({k: sha256(v) for k, v in sorted(files.items())}).encode()
        commit = hashlib.sha1(repo.encode() + blob, usedforsecurity=False).hexdigest()
        self.repositories.setdefault(repo, []).append((commit, dict(files)))
        return commit

    def files(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        history = self.repositories.get(repo, [])
        if revision in ("main", "master") and history:
            return history[-1]
        return next((c for c in history if c[0] == revision), None)

    def fault(self, server: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.match in path and fault.server in ("any", server):
                    fault.times -= 1
                    return fault
        return None

    def requests(self, match: str = "", server: str | None = None) -> list[Seen]:
        with self.lock:
            return [s for s in self.seen if match in s.path and server in (None, s.server)]

    def forget(self) -> None:
        with self.lock:
            self.seen.clear()
            self.sent_bytes = 0

    def close(self) -> None:
        for server in self.servers.values():
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, hub: Hub, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub
        self.name = name
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        hub = self.server.hub
        path = unquote(self.path)
        fault = hub.fault(self.server.name, path)
        if fault is not None and fault.redirect is not None:
            self.answer(302, {"location": fault.redirect})
            return
        if fault is not None and fault.status is not None:
            self.answer(fault.status, fault.headers, fault.body)
            return
        url = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        if self.server.name == "cdn":
            repo, commit, name = unquote(url.path)[1:].split("|")
            self.file((hub.files(repo, commit) or ("", {}))[1][name], fault)
            return
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", url.path):
            self.hf_list(match[1], unquote(match[2]))
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", url.path):
            self.resolve(match[1], match[2], unquote(match[3]), fault)
        elif match := re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/revisions", url.path):
            self.ms_revisions(match[1])
        elif match := re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/repo/files", url.path):
            self.ms_list(match[1], query["Revision"])
        elif match := re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/repo", url.path):
            self.resolve(match[1], query["Revision"], query["FilePath"], fault)
        else:
            self.answer(404, {})

    # ------------------------------------------------------------------------------- lists

    def allowed(self, repo: str) -> bool:
        wanted = self.server.hub.gated.get(repo)
        if wanted is None or self.headers.get("authorization") == f"Bearer {wanted}":
            return True
        code = {"x-error-code": "GatedRepo", "x-error-message": "Access is restricted"}
        self.answer(401 if "authorization" not in self.headers else 403, code)
        return False

    def hf_list(self, repo: str, revision: str) -> None:
        found = self.server.hub.files(repo, revision)
        if not self.allowed(repo):
            return
        if found is None:
            known = repo in self.server.hub.repositories
            code = "RevisionNotFound" if known else "RepoNotFound"
            self.answer(404 if known else 401, {"x-error-code": code})
            return
        commit, files = found
        siblings: list[dict[str, Any]] = []
        for name, data in files.items():
            row: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git_id(data)}
            if name.endswith(LARGE):
                row["lfs"] = {"size": len(data), "sha256": sha256(data), "pointerSize": 135}
            siblings.append(row)
        self.json({"id": repo, "sha": commit, "siblings": siblings})

    def ms_list(self, repo: str, revision: str) -> None:
        found = self.server.hub.files(repo, revision)
        if found is None:
            self.answer(404, {}, b'{"Code": 10010205001, "Message": "record not found"}')
            return
        rows: list[dict[str, Any]] = [
            {"Path": n, "Name": n, "Size": len(d), "Sha256": sha256(d), "Type": "blob"}
            for n, d in found[1].items()
        ]
        rows.append({"Path": "folder", "Name": "folder", "Size": 0, "Type": "tree"})
        self.json({"Code": 200, "Success": True, "Data": {"Files": rows}})

    def ms_revisions(self, repo: str) -> None:
        names = {"Branches": [{"Revision": "master"}], "Tags": [{"Revision": "v1.0"}]}
        self.json({"Code": 200, "Success": True, "Data": {"RevisionMap": names}})

    # ------------------------------------------------------------------------------- files

    def resolve(self, repo: str, revision: str, name: str, fault: Fault | None) -> None:
        found = self.server.hub.files(repo, revision)
        if not self.allowed(repo):
            return
        if found is None or name not in found[1]:
            self.answer(404, {"x-error-code": "EntryNotFound"})
            return
        commit, files = found
        if name.endswith(LARGE):
            place = f"{self.server.hub.cdn_url}/{repo}|{commit}|{name}?signature=secret"
            self.answer(302, {"location": place, "x-repo-commit": commit})
        else:
            self.file(files[name], fault)

    def file(self, data: bytes, fault: Fault | None) -> None:
        fault = fault or Fault("")
        tag = f'"{sha256(data)[:32]}"'
        headers = {"etag": tag} if self.server.hub.etags else {}
        start, status = 0, 200
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        fresh = self.headers.get("if-range") in (None, tag)
        if asked and fresh and not fault.ignore_range:
            start, status = int(asked[1]), 206
            if start >= len(data):
                self.answer(416, {"content-range": f"bytes */{len(data)}"})
                return
            if fault.shift_range:
                start = max(0, start - 7)
            headers["content-range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        body = data[start:]
        if fault.damage:
            body = bytes(b ^ 0xFF for b in body)
        if fault.longer:
            body += b"more"
        self.answer(status, headers, body, fault)

    def json(self, value: Any) -> None:
        self.answer(200, {"content-type": "application/json"}, json.dumps(value).encode())

    def answer(
        self, status: int, headers: Mapping[str, str], body: bytes = b"", fault: Fault | None = None
    ) -> None:
        hub = self.server.hub
        with hub.lock:
            got = {k.lower(): v for k, v in self.headers.items()}
            hub.seen.append(Seen(self.server.name, unquote(self.path), got, status))
        self.send_response_only(status)
        self.send_header("date", email.utils.formatdate(usegmt=True))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        cut = fault.cut_after if fault else None
        end = len(body) if cut is None else min(cut, len(body))
        for at in range(0, end, 16_384):
            piece = body[at : min(at + 16_384, end)]
            self.wfile.write(piece)
            with hub.lock:
                hub.sent_bytes += len(piece)
            if fault and fault.pause_s:
                time.sleep(fault.pause_s)
        if cut is not None:
            self.close_connection = True
