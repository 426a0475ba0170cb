"""An engine that speaks llama-server's shapes, byte by byte as a test says, and its owner."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from qwharf.errors import EngineError, UnknownDeployment
from qwharf.gateway.upstream import Upstream
from qwharf.types import (
    Architecture,
    Deployment,
    DeploymentSpec,
    DeploymentState,
    Format,
    Sampling,
    Thinking,
)

THINKING = Sampling(temperature=0.6, top_p=0.95, top_k=20, max_output_tokens=32768)
PLAIN = Sampling(temperature=0.7, top_p=0.8, top_k=20, presence_penalty=1.5)
ARCHITECTURE = Architecture(
    model_type="qwen3",
    num_hidden_layers=2,
    hidden_size=256,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    intermediate_size=512,
    vocab_size=1000,
    tie_word_embeddings=True,
    max_position_embeddings=2048,
)


def spec_of(name: str = "pocket", thinking: Thinking = "hybrid", **fields: Any) -> DeploymentSpec:
    made: dict[str, Any] = {
        "name": name,
        "platform": "llama.cpp",
        "model": "qwen3:test",
        "thinking": thinking,
        "format": Format("gguf", "q8_0"),
        "artifact_id": "0" * 64,
        "artifact_path": Path("/nowhere/model.gguf"),
        "architecture": ARCHITECTURE,
        "context_tokens": 2048,
        "sampling": {
            "hybrid": {"thinking": THINKING, "non-thinking": PLAIN},
            "instruct": {"non-thinking": PLAIN},
            "thinking": {"thinking": THINKING},
        }[thinking],
    }
    return DeploymentSpec(**made | fields)


def deployment_of(spec: DeploymentSpec, state: DeploymentState = "ready") -> Deployment:
    return Deployment(spec=spec, state=state, base_url="http://127.0.0.1:1/v1", created_at=1.5)


# ------------------------------------------------------------------------------------- answers

ABORT = object()
"""The connection is reset, as when the process is killed."""
CLOSE = object()
"""The connection is closed."""
UNTIL_GONE = object()
"""Nothing more is said until the other side has gone."""
Step = bytes | float | object
SSE = (
    b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\nKeep-Alive: timeout=5, max=100\r\n\r\n"
)
END = b"0\r\n\r\n"
DONE = "data: [DONE]\n\n"


def chunked(data: str | bytes) -> bytes:
    raw = data.encode() if isinstance(data, str) else data
    return b"%x\r\n%s\r\n" % (len(raw), raw)


def delta(text: str) -> str:
    """One event as llama-server writes it."""
    choice = {"finish_reason": None, "index": 0, "delta": {"content": text}}
    event = {"choices": [choice], "id": "chatcmpl-1", "object": "chat.completion.chunk"}
    return f"data: {json.dumps(event, ensure_ascii=False, separators=(',', ':'))}\n\n"


def stream(*texts: str) -> list[Step]:
    return [SSE, *(chunked(delta(t)) for t in texts), chunked(DONE), END]


def answer(body: Any, status: int = 200, kind: str = "application/json; charset=utf-8") -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(raw)}\r\n\r\n"
    return head.encode() + raw


def refusal(status: int, message: str, kind: str) -> bytes:
    return answer({"error": {"code": status, "message": message, "type": kind}}, status)


USAGE = {"completion_tokens": 3, "prompt_tokens": 7, "total_tokens": 10}
FRAME = {"created": 1, "id": "chatcmpl-1", "model": "pocket", "object": "chat.completion.chunk"}


def event(value: Any) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> str:
    """An event with one choice."""
    return event(
        {"choices": [{"finish_reason": finish, "index": 0, "delta": delta} | more]} | FRAME
    )


def spoken(*events: str) -> list[Step]:
    """A stream that says how it ends, as the engine's do."""
    usage = event({"choices": [], "usage": USAGE} | FRAME)
    end = [chunk({}, "stop"), usage, DONE] if DONE not in events else []
    begin = chunk({"role": "assistant", "content": None})
    return [SSE, *(chunked(e) for e in (begin, *events, *end)), END]


REPLY = spoken(chunk({"content": "Grü"}), chunk({"content": "ße"}))
WHOLE = {
    "choices": [
        {"finish_reason": "stop", "index": 0, "message": {"role": "assistant", "content": "Grüße"}}
    ],
    "created": 1,
    "id": "chatcmpl-1",
    "model": "pocket",
    "object": "chat.completion",
    "usage": USAGE,
}


def sensible(body: dict[str, Any]) -> Sequence[Step]:
    """The script of an engine that does as it is asked."""
    return REPLY if body.get("stream") else [answer(WHOLE)]


@dataclass
class Heard:
    """A request as it arrived."""

    path: str
    body: dict[str, Any]
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the other side closed the connection while we were silent."""


class Engine:
    """Answers every request with ``steps``, or with the next of ``queue`` while there is one."""

    def __init__(self, steps: Sequence[Step] = REPLY) -> None:
        self.steps = list(steps)
        self.queue: list[list[Step]] = []
        self.script: Callable[[dict[str, Any]], Sequence[Step]] | None = None
        """Steps that depend on the request."""
        self.heard: list[Heard] = []
        self.asked = asyncio.Event()
        self.url = ""
        self._server: asyncio.Server | None = None

    async def start(self) -> "Engine":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}"
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    @property
    def body(self) -> dict[str, Any]:
        """The body of the latest request."""
        return self.heard[-1].body

    def _steps(self, body: dict[str, Any]) -> Sequence[Step]:
        if self.script:
            return self.script(body)
        return self.queue.pop(0) if self.queue else self.steps

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(
                int(line.split(":")[1])
                for line in head.lower().split("\r\n")
                if line.startswith("content-length")
            )
            body = json.loads(await reader.readexactly(length))
            heard = Heard(head.split()[1], body)
            self.heard.append(heard)
            self.asked.set()
            for step in self._steps(body):
                if isinstance(step, bytes):
                    writer.write(step)
                    await writer.drain()
                elif isinstance(step, float):
                    await asyncio.sleep(step)
                elif step is ABORT:
                    writer.transport.abort()
                    return
                elif step is CLOSE:
                    break
                elif step is UNTIL_GONE:
                    await reader.read()
                    heard.gone.set()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


class Owner:
    """Deployments as the daemon keeps them: tells what became of its engines."""

    def __init__(self, engine: Engine, *specs: DeploymentSpec) -> None:
        self.engine = engine
        self.deployments = [deployment_of(s) for s in specs or (spec_of(),)]
        self.generation = 1
        self.lost_generations: list[int] = []
        self.failure: EngineError | None = None
        self.on_lost: Callable[[], None] = lambda: None
        """What happens then; by default nothing: the engine stays dead."""

    def all(self) -> list[Deployment]:
        return self.deployments

    async def ready(self, name: str) -> Upstream:
        if self.failure:
            raise self.failure
        for deployment in self.deployments:
            if deployment.spec.name == name:
                return Upstream(
                    spec=deployment.spec,
                    url=self.engine.url,
                    model=deployment.spec.name,
                    generation=self.generation,
                )
        raise UnknownDeployment(name)

    def lost(self, upstream: Upstream) -> None:
        self.lost_generations.append(upstream.generation)
        if upstream.generation == self.generation:
            self.on_lost()

    def state(self, state: DeploymentState) -> None:
        self.deployments = [replace(d, state=state) for d in self.deployments]
