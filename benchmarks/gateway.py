"""What the gateway costs, against a bare pass-through of aiohttp in front of the same engine.

    python -m benchmarks.gateway [--requests N] [--rounds N]

The engine is a stand-in that answers at once, so that only the way there and back is measured.
Gateway and pass-through run as processes of their own and are asked in turns; CPU seconds are read
from the processes, so a busy machine disturbs them less than the clock. The pass-through checks
nothing and translates nothing: it is the floor, not a rival. Above all it asks for a whole answer
where one is wanted; the gateway always asks for a stream, which the engine gives up as soon as its
client has gone, and puts the answer together.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from benchmarks.machine import header, table

EVENTS = 200
WARM_UP = 30
CHUNK = {
    "choices": [{"finish_reason": None, "index": 0, "delta": {"content": " word"}}],
    "created": 1,
    "id": "chatcmpl-0",
    "model": "bench",
    "object": "chat.completion.chunk",
}
EVENT = b"data: " + json.dumps(CHUNK).encode() + b"\n\n"
WHOLE = json.dumps(
    {"choices": [{"index": 0, "message": {"role": "assistant", "content": " word" * EVENTS}}]}
).encode()
BODY = {
    "model": "bench",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Tell me about the sea, please. " * 8},
    ],
    "temperature": 0.7,
    "max_tokens": 256,
}


SESSION = web.AppKey("session", aiohttp.ClientSession)


# --------------------------------------------------------------------------- the three processes


async def stand_in() -> web.Application:
    """An engine that has nothing to think about."""

    async def chat(request: web.Request) -> web.StreamResponse:
        # Asked to stream, it does; the gateway asks for that even where its client does not.
        if not (await request.json()).get("stream"):
            return web.Response(body=WHOLE, content_type="application/json")
        out = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await out.prepare(request)
        for _ in range(EVENTS):
            await out.write(EVENT)
            await asyncio.sleep(0)  # so that events travel one by one, as they do from an engine
        await out.write(b"data: [DONE]\n\n")
        return out

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    return app


async def pass_through(engine: str) -> web.Application:
    """Bytes in, bytes out."""

    async def chat(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        url = f"{engine}/v1/chat/completions"
        async with request.app[SESSION].post(url, data=body) as answer:
            if answer.content_type != "text/event-stream":
                return web.Response(body=await answer.read(), content_type=answer.content_type)
            out = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await out.prepare(request)
            async for piece in answer.content.iter_any():
                await out.write(piece)
            return out

    async def lifetime(app: web.Application) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as app[SESSION]:
            yield

    app = web.Application()
    app.cleanup_ctx.append(lifetime)
    app.router.add_post("/v1/chat/completions", chat)
    return app


async def gateway(engine: str) -> web.Application:
    """The real one, over one deployment."""
    from collections.abc import Sequence
    from pathlib import Path

    from qwharf import catalog
    from qwharf.gateway.app import build
    from qwharf.gateway.upstream import Upstream
    from qwharf.types import Deployment, DeploymentSpec, Format

    model = catalog.find("qwen3:0.6b")
    spec = DeploymentSpec(
        name="bench",
        platform="llama.cpp",
        model=model.name,
        thinking=model.thinking,
        format=Format("gguf", "q8_0"),
        artifact_id="0",
        artifact_path=Path("none.gguf"),
        architecture=model.architecture,
        context_tokens=4096,
        sampling=model.sampling,
    )

    class One:
        def all(self) -> Sequence[Deployment]:
            return [Deployment(spec=spec, state="ready", base_url="")]

        async def ready(self, name: str) -> Upstream:
            return Upstream(spec=spec, url=engine, model=spec.name, generation=1)

        def lost(self, upstream: Upstream) -> None:
            raise AssertionError("the stand-in does not break")

    return build(One(), api_key=None)


async def serve(kind: str, engine: str) -> None:
    """Run one of the three until killed; its first line says where."""
    makers: dict[str, Callable[[], Awaitable[web.Application]]] = {
        "engine": stand_in,
        "pass-through": lambda: pass_through(engine),
        "gateway": lambda: gateway(engine),
    }
    runner = web.AppRunner(await makers[kind](), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(site.name if ":0" not in site.name else "", *runner.addresses[0], flush=True)
    await asyncio.Event().wait()


@contextlib.contextmanager
def process(kind: str, engine: str = "") -> Iterator[tuple[str, int]]:
    """(URL, process id) of one of the three."""
    argv = [sys.executable, "-m", "benchmarks.gateway", "--serve", kind, "--engine", engine]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            *_, host, port = child.stdout.readline().split()
            yield f"http://{host}:{port}", child.pid
        finally:
            child.kill()


# ------------------------------------------------------------------------------------ measuring


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one kind of request."""

    cpu_ms: float
    p50_ms: float
    p99_ms: float


async def measure(url: str, pid: int, stream: bool, requests: int) -> Cost:
    """Ask one after the other."""
    import psutil

    watched = psutil.Process(pid)
    body = BODY | ({"stream": True} if stream else {})
    async with aiohttp.ClientSession() as session:

        async def ask() -> float:
            start = time.perf_counter()
            async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
                raw = await answer.read()
                assert answer.status == 200, raw
                assert not stream or raw.count(b"\n\n") == EVENTS + 1
            return (time.perf_counter() - start) * 1000

        for _ in range(WARM_UP if not stream else 3):
            await ask()
        before = watched.cpu_times()
        walls = sorted([await ask() for _ in range(requests)])
        after = watched.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    return Cost(cpu * 1000 / requests, statistics.median(walls), walls[int(len(walls) * 0.99)])


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--requests", type=int, default=400, help="of each kind, per round")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--serve", choices=("engine", "pass-through", "gateway"))
    options.add_argument("--engine", default="")
    args = options.parse_args()
    if args.serve:
        asyncio.run(serve(args.serve, args.engine))
        return 0
    header("Gateway")
    kinds = ("engine", "pass-through", "gateway")
    seen: dict[tuple[str, bool], list[Cost]] = {}
    with contextlib.ExitStack() as stack:
        found = {"engine": stack.enter_context(process("engine"))}
        for kind in kinds[1:]:
            found[kind] = stack.enter_context(process(kind, found["engine"][0]))
        for _ in range(args.rounds):
            for stream in (False, True):
                count = max(10, args.requests // 8) if stream else args.requests
                for kind in kinds:
                    cost = asyncio.run(measure(*found[kind], stream, count))
                    seen.setdefault((kind, stream), []).append(cost)
    show({key: _middle(costs) for key, costs in seen.items()})
    return 0


def _middle(costs: list[Cost]) -> Cost:
    return Cost(
        *(
            statistics.median(getattr(c, name) for c in costs)
            for name in ("cpu_ms", "p50_ms", "p99_ms")
        )
    )


def show(costs: dict[tuple[str, bool], Cost]) -> None:
    """Medians over the rounds; what is added to asking the engine directly; the ratio of CPU."""
    rows = []
    for stream in (False, True):
        floor, direct = costs["pass-through", stream], costs["engine", stream]
        for kind in ("pass-through", "gateway"):
            cost = costs[kind, stream]
            rows.append(
                [
                    f"{EVENTS} tokens, {'streamed' if stream else 'whole'}",
                    kind,
                    f"{cost.cpu_ms:.2f}",
                    f"{cost.cpu_ms / EVENTS:.4f}",
                    f"{cost.p50_ms - direct.p50_ms:.2f}",
                    f"{cost.p99_ms - direct.p99_ms:.2f}",
                    f"{cost.cpu_ms / floor.cpu_ms:.2f}" if floor.cpu_ms else "-",
                ]
            )
    columns = (
        *("request", "through", "CPU ms", "CPU ms per token"),
        *("added p50 ms", "added p99 ms", "CPU against the pass-through"),
    )
    table(columns, rows)


if __name__ == "__main__":
    sys.exit(main())
