"""An Ollama for tests, written from what a real 0.33.0 was seen to do (the exchanges recorded with
it are in ``recordings/ollama``). It keeps a real store on disk and obeys it as Ollama does: nothing
of what it knows about models is held in memory. With engines, a loaded model is a real llama.cpp
behind ``/api/chat``, ``/api/generate`` and ``/v1/chat/completions``.

Also a program: ``python ollama_double.py serve`` takes the place of ``ollama serve``, reads the
same variables, and prunes at its start.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from ollama_double_engine import Brain
from ollama_double_store import Answer, Shelf, full, short

from qwharf.errors import InvalidFile
from qwharf.formats.gguf import read_gguf

MODEL = "application/vnd.ollama.image.model"
DEFAULT_CONTEXT = 4096
LOAD_OPTIONS = ("num_ctx", "num_thread", "num_batch", "use_mmap", "shift")


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


# ----------------------------------------------------------------------------------- the server


@dataclass
class Runner:
    """A loaded model; all names of one file of weights share it."""

    weights: Path
    name: str
    options: dict[str, Any]
    context: int
    expires_at: str
    brain: Brain | None

    def is_dead(self) -> bool:
        return self.brain is not None and self.brain.child.poll() is not None


Fault = Callable[[BaseHTTPRequestHandler], bool]
"""Answers a request badly; whether it did."""


@dataclass
class OllamaDouble:
    """One server. ``faults`` maps ``METHOD /path`` to a misdeed."""

    models: Path
    version: str = "0.33.0"
    engines: bool = False
    host: str = "127.0.0.1"
    port: int = 0
    faults: dict[str, Fault] = field(default_factory=dict)
    loads: int = 0
    """How often weights were read."""
    asked: list[tuple[str, Any]] = field(default_factory=list)
    runners: dict[Path, Runner] = field(default_factory=dict)

    def start(self) -> OllamaDouble:
        self.shelf = Shelf(self.models)
        self.lock = threading.RLock()
        if not os.environ.get("OLLAMA_NOPRUNE"):
            self.shelf.prune()
        self.server = ThreadingHTTPServer((self.host, self.port), handler(self))
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        return self

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def stop(self) -> None:
        for runner in list(self.runners.values()):
            self.end(runner)
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def __enter__(self) -> OllamaDouble:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ------------------------------------------------------------------------------ models

    def end(self, runner: Runner) -> None:
        self.runners.pop(runner.weights, None)
        if runner.brain is not None:
            runner.brain.stop()

    def load(self, body: Mapping[str, Any]) -> tuple[Runner, dict[str, Any]]:
        """The runner for a request, loaded anew where its load options differ, and its options."""
        name, path = self.shelf.find(body["model"])
        manifest = self.shelf.read(path)
        weights = self.shelf.layer(manifest, "model")
        if weights is None or not weights.exists():
            raise Answer(404, f"model '{short(name)}' not found")
        options = {**self.shelf.params(manifest), **(body.get("options") or {})}
        if not isinstance(options.get("num_ctx", 0), int):
            raise Answer(500, 'option "num_ctx" must be of type integer')
        wanted = {k: v for k, v in options.items() if k in LOAD_OPTIONS}
        wanted["shift"] = body.get("shift", True)
        real = weights.resolve()
        key = Path(str(real.stat().st_dev), str(real.stat().st_ino))
        runner = self.runners.get(key)
        if runner is None or runner.options != wanted or runner.is_dead():
            if runner is not None:
                self.end(runner)
            runner = self._start(key, real, name, wanted)
        runner.name = name
        keep = body.get("keep_alive", 300)
        ends = datetime.now(UTC) + timedelta(seconds=float(keep) if keep != -1 else 9.2e9)
        runner.expires_at = ends.isoformat()
        return runner, options

    def _must_chat(self, name: str) -> None:
        """What a model can do stands in its header; that tensors are missing shows later."""
        weights = self.shelf.layer(self.shelf.read(self.shelf.find(name)[1]), "model")
        try:
            if weights is not None:
                read_gguf(weights)
        except InvalidFile as e:
            if not e.found.startswith("a file of"):
                raise Answer(400, f'"{name}" does not support chat') from None

    def _start(self, key: Path, weights: Path, name: str, wanted: dict[str, Any]) -> Runner:
        try:
            file = read_gguf(weights)
        except Exception as e:
            raise Answer(500, str(e)) from None
        most = file.metadata[f"{file.metadata['general.architecture']}.context_length"]
        asked = wanted.get("num_ctx", int(os.environ.get("OLLAMA_CONTEXT_LENGTH", DEFAULT_CONTEXT)))
        context = max(4, min(asked, most))  # both in silence
        self.loads += 1
        brain = Brain(weights, context) if self.engines else None
        runner = Runner(key, name, wanted, context, "", brain)
        self.runners[key] = runner
        return runner

    def details(self, manifest: Mapping[str, Any], weights: Path) -> dict[str, Any]:
        config = json.loads(self.shelf.blob(manifest["config"]["digest"]).read_bytes())
        kind = read_gguf(weights).metadata.get("general.file_type")
        return {
            "parent_model": "",
            "format": config.get("model_format", ""),
            "family": config.get("model_family", ""),
            "families": config.get("model_families"),
            "parameter_size": config.get("model_type", ""),
            "quantization_level": config.get("file_type") or f"type {kind}",
        }

    def entry(self, name: str, path: Path) -> dict[str, Any]:
        manifest = self.shelf.read(path)
        weights = self.shelf.layer(manifest, "model")
        assert weights is not None
        facts = read_gguf(weights).metadata
        arch = facts["general.architecture"]
        details = self.details(manifest, weights) | {
            "context_length": facts[f"{arch}.context_length"],
            "embedding_length": facts[f"{arch}.embedding_length"],
        }
        return {
            "name": short(name),
            "model": short(name),
            "modified_at": now(),
            "size": sum(x["size"] for x in (manifest["config"], *manifest["layers"])),
            "digest": hashlib.sha256(path.read_bytes()).hexdigest(),
            "details": details,
            "capabilities": ["completion"],
        }

    def show(self, name: str) -> dict[str, Any]:
        found, path = self.shelf.find(name)
        manifest = self.shelf.read(path)
        weights = self.shelf.layer(manifest, "model")
        config = self.shelf.blob(manifest["config"]["digest"])
        if weights is None or not weights.exists() or not config.exists():
            raise Answer(404, f"model '{short(found)}' not found")
        try:
            facts = dict(read_gguf(weights).metadata)
        except Exception as e:
            raise Answer(500, str(e)) from None
        license = self.shelf.layer(manifest, "license")
        params = self.shelf.params(manifest)
        answer: dict[str, Any] = {"license": license.read_text()} if license else {}
        lines = (f"{k:<30} {json.dumps(v)}" for k, v in params.items())
        return answer | {
            "modelfile": f"# FROM {short(found)}\n\nFROM {weights}\n",
            **({"parameters": "\n".join(lines)} if params else {}),
            "template": facts.pop("tokenizer.chat_template", "{{ .Prompt }}"),
            "details": self.details(manifest, weights),
            "model_info": {k: v for k, v in facts.items() if isinstance(v, str | int | float)},
            "tensors": [],
            "capabilities": ["tools", "thinking", "completion"],
            "modified_at": now(),
        }

    def ps(self) -> dict[str, Any]:
        models = []
        for runner in self.runners.values():
            try:
                entry = self.entry(*self.shelf.find(short(runner.name)))
            except Answer:
                continue  # deleted while loaded: the runner goes on
            details = {k: v for k, v in entry["details"].items() if not k.endswith("_length")}
            kept = {k: entry[k] for k in ("name", "model", "size", "digest")}
            models.append(
                {
                    **kept,
                    "details": details,
                    "expires_at": runner.expires_at,
                    "size_vram": 0,
                    "context_length": runner.context,
                }
            )
        return {"models": models}

    def create(self, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The weights are written anew, so both copies lie in the store."""
        files, base = body.get("files"), body.get("from")
        if not files and not base:
            raise Answer(400, "neither 'from' or 'files' was specified")
        if files and any(Path(f).is_absolute() for f in files):
            raise Answer(400, "file path must be relative")
        if base:
            manifest = self.shelf.read(self.shelf.find(base)[1])
            layers = [x for x in manifest["layers"] if not x["mediaType"].endswith(".params")]
            config = manifest["config"]
        else:
            yield {"status": "parsing GGUF"}
            source = self.shelf.blob(next(iter(files.values())))
            if not source.exists():
                yield {"error": f"open {source}: no such file or directory"}
                return
            yield {"status": "verifying conversion"}
            layers = [self.shelf.put("model", source.read_bytes() + b"\0" * 32)]
            told = {"model_format": "gguf", "model_family": "qwen3", "model_families": ["qwen3"]}
            config = self.shelf.put("config", json.dumps(told).encode())
        if body.get("license"):
            layers.append(self.shelf.put("license", body["license"].encode()))
        if body.get("parameters"):
            sorted_ = json.dumps(body["parameters"], sort_keys=True).encode()
            layers.append(self.shelf.put("params", sorted_))
        for layer in layers:
            yield {"status": f"creating new layer {layer['digest']}"}
        yield {"status": "writing manifest"}
        host, space, last = full(body["model"]).split("/")
        path = self.shelf.root / "manifests" / host / space / last.replace(":", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        manifest = {"schemaVersion": 2, "config": config, "layers": layers}
        path.write_text(json.dumps(manifest))
        yield {"status": "success"}

    # ------------------------------------------------------------------------------ answers

    def answer(self, method: str, path: str, body: Any) -> Any:
        """The body of an answer: a dict, ``None``, or lines."""
        match method, path:
            case "GET", "/api/version":
                return {"version": self.version}
            case "GET", "/api/status":
                return {"cloud": {"disabled": True, "source": "env"}}
            case "GET", "/api/tags":
                found = []
                for name, at in self.shelf.manifests():
                    with contextlib.suppress(Answer, ValueError, OSError):
                        found.append(self.entry(name, at))
                return {"models": found}
            case "GET", "/api/ps":
                return self.ps()
            case "GET", "/v1/models":
                data = [
                    {"id": short(n), "object": "model", "created": 0, "owned_by": "library"}
                    for n, _ in self.shelf.manifests()
                ]
                return {"object": "list", "data": data}
            case "POST", "/api/show":
                return self.show(body["model"])
            case "POST", "/api/copy":
                _, source = self.shelf.find(body["source"])
                host, space, last = full(body["destination"]).split("/")
                target = self.shelf.root / "manifests" / host / space / last.replace(":", "/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())
                return None
            case "DELETE", "/api/delete":
                try:
                    _, at = self.shelf.find(body["model"])
                except Answer:
                    raise Answer(404, f"model '{body['model']}' not found") from None
                self.shelf.delete(at)
                return None
            case "POST", "/api/create":
                lines = self.create(body)
                first = next(lines)  # what is refused at once is refused with a status
                if body.get("stream") is False:
                    return [first, *lines][-1]
                return iter([first, *lines])
            case "POST", ("/api/generate" | "/api/chat" | "/v1/chat/completions"):
                return self.infer(path, body)
        raise Answer(404, "404 page not found")

    def infer(self, path: str, body: dict[str, Any]) -> Any:
        said = {"model": body["model"], "created_at": now()}
        empty = not (body.get("messages") if "chat" in path else body.get("prompt"))
        quiet = {"message": {"role": "assistant", "content": ""}} if path == "/api/chat" else {}
        quiet = quiet or {"response": ""}
        if empty and path.startswith("/api/"):
            if body.get("keep_alive") == 0:
                _, at = self.shelf.find(body["model"])
                weights = self.shelf.layer(self.shelf.read(at), "model")
                assert weights is not None
                found = weights.stat()
                runner = self.runners.get(Path(str(found.st_dev), str(found.st_ino)))
                if runner is not None:
                    self.end(runner)
                return said | quiet | {"done": True, "done_reason": "unload"}
            with self.lock:
                self.load(body)
            return said | quiet | {"done": True, "done_reason": "load"}
        with self.lock:
            if path == "/api/chat":
                self._must_chat(body["model"])
            runner, options = self.load(body)
        if runner.brain is None:
            raise Answer(500, "this double has no engines")
        return runner.brain.answer(path, body, options, said)


def handler(double: OllamaDouble) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do(self) -> None:
            path = self.path.partition("?")[0]
            fault = double.faults.get(f"{self.command} {path}")
            length = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(length)
            if fault is not None and fault(self):
                return
            if path.startswith("/api/blobs/"):
                self.blob(path.removeprefix("/api/blobs/"), raw)
                return
            if path == "/":
                self.send(200, b"Ollama is running", "text/plain; charset=utf-8")
                return
            try:
                body = json.loads(raw) if raw else {}
                double.asked.append((f"{self.command} {path}", body))
                answer = double.answer(self.command, path, body)
                if isinstance(answer, dict | None):
                    self.send(200, b"" if answer is None else json.dumps(answer).encode())
                else:
                    self.stream(answer, sse=path.startswith("/v1/"))
            except Answer as e:
                told = {"error": {"message": str(e), "type": "api_error", "param": None}}
                shape = told if path.startswith("/v1/") else e.body
                self.send(e.status, json.dumps(shape).encode())

        def blob(self, digest: str, raw: bytes) -> None:
            at = double.shelf.blob(digest)
            if self.command == "HEAD":
                self.send(200 if at.exists() else 404, b"")
            elif at.exists():
                self.send(200, b"")
            elif (found := f"sha256:{hashlib.sha256(raw).hexdigest()}") != digest:
                error = f"digest mismatch, expected {digest!r}, got {found!r}"
                self.send(400, json.dumps({"error": error}).encode())
            else:
                at.parent.mkdir(parents=True, exist_ok=True)
                at.write_bytes(raw)
                self.send(201, b"")

        def send(
            self, status: int, body: bytes, kind: str = "application/json; charset=utf-8"
        ) -> None:
            self.send_response(status)
            if body:
                self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def stream(self, lines: Iterator[Any], *, sse: bool) -> None:
            first = next(lines)  # an error before the first line has a status
            self.send_response(200)
            kind = "text/event-stream" if sse else "application/x-ndjson"
            self.send_header("Content-Type", kind)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.chunk(first, sse)
            try:
                for line in lines:
                    self.chunk(line, sse)
            except Answer as e:
                if not sse:
                    self.chunk(e.body, sse)
            self.wfile.write(b"0\r\n\r\n")

        def chunk(self, line: Any, sse: bool) -> None:
            text = line if isinstance(line, str) else json.dumps(line)
            data = f"data: {text}\n\n" if sse else f"{text}\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data.encode()), data.encode()))
            self.wfile.flush()

        do_GET = do_POST = do_DELETE = do_HEAD = do

    return Handler


def main(argv: list[str]) -> int:
    """As the program ``ollama``."""
    from qwharf.platforms import ollama_address

    version = os.environ.get("OLLAMA_DOUBLE_VERSION", "0.33.0")
    if argv == ["--version"]:
        sys.stdout.write(
            "Warning: could not connect to a running Ollama instance\n"
            f"Warning: client version is {version}\n"
        )
        return 0
    _, host, port, _ = ollama_address.parse(os.environ.get("OLLAMA_HOST", ""))
    models = Path(os.environ.get("OLLAMA_MODELS") or Path.home() / ".ollama" / "models")
    engines = "OLLAMA_DOUBLE_ENGINES" in os.environ
    double = OllamaDouble(models, version=version, engines=engines, host=host, port=port)
    try:
        double.start()
    except OSError as e:
        sys.stderr.write(f"Error: listen tcp {host}:{port}: bind: {e.strerror}\n")
        return 1
    sys.stderr.write(f"Listening on {host}:{port} (version {version})\n")
    double.thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
