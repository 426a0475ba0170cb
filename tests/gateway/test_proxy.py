"""Bytes from engine to client, whole and streamed, and every way in which an engine breaks."""

import asyncio
import json
import logging

import aiohttp
import pytest
from gateway_client import HI, Gateway
from gateway_doubles import (
    ABORT,
    CLOSE,
    DONE,
    END,
    REPLY,
    SSE,
    UNTIL_GONE,
    WHOLE,
    Engine,
    answer,
    chunk,
    chunked,
    delta,
    event,
    refusal,
    spoken,
    stream,
)

from qwharf.errors import EngineError


def events(raw: bytes) -> list[str]:
    """The data of each event; strict about their form."""
    assert raw.endswith(b"\n\n")
    blocks = raw.decode("utf-8").removesuffix("\n\n").split("\n\n")
    assert all(b.startswith(("data: ", ":")) and "\n" not in b for b in blocks)
    return [b.removeprefix("data: ") for b in blocks if b.startswith("data: ")]


async def until(seen: asyncio.Event) -> None:
    await asyncio.wait_for(seen.wait(), 5)


# ----------------------------------------------------------------------------------- forwarding


async def test_a_whole_answer_is_the_stream_put_together(gateway: Gateway) -> None:
    reply = await gateway.chat()
    assert reply.status == 200
    assert reply.json == WHOLE
    assert "Grüße".encode() in reply.raw
    assert reply.headers["Content-Type"].startswith("application/json")
    assert gateway.engine.heard[0].path == "/v1/chat/completions"
    assert gateway.engine.body["stream"] is True
    assert "x-qwharf-upstream" not in reply.headers


async def test_a_stream_passes_unchanged_and_at_once(gateway: Gateway) -> None:
    first, last = delta("Grüße 🚀"), delta("x")
    gateway.engine.steps = [SSE, chunked(first), UNTIL_GONE]
    body = {"model": "pocket", "messages": HI, "stream": True}
    url = f"{gateway.url}/v1/chat/completions"
    async with gateway.session.post(url, json=body) as r:
        assert r.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert await asyncio.wait_for(r.content.readuntil(b"\n\n"), 5) == first.encode()
    await until(gateway.engine.heard[0].gone)
    gateway.engine.steps = stream("Grüße 🚀", "x")
    reply = await gateway.chat(stream=True)
    assert reply.raw.decode() == first + last + DONE


async def test_characters_and_events_torn_by_the_network_are_mended(gateway: Gateway) -> None:
    raw = (delta("Grüße 你好 🚀") + delta("b") + DONE).encode()
    pieces: list[object] = [SSE]
    for i in range(len(raw)):
        pieces += [chunked(raw[i : i + 1])] + ([0.001] if raw[i] > 0x7F else [])
    gateway.engine.steps = [*pieces, END]
    body = {"model": "pocket", "messages": HI, "stream": True}
    async with gateway.session.post(f"{gateway.url}/v1/chat/completions", json=body) as r:
        seen = [piece async for piece in r.content.iter_any()]
    assert b"".join(seen) == raw
    assert all(piece.endswith(b"\n\n") for piece in seen)


@pytest.mark.parametrize("ending", ["\n\n", "\r\n\r\n"])
async def test_pings_and_other_line_ends_pass(gateway: Gateway, ending: str) -> None:
    raw = f":{ending}data: {{}}{ending}data: [DONE]{ending}"
    gateway.engine.steps = [SSE, *(chunked(c) for c in raw), END]
    reply = await gateway.chat(stream=True)
    assert reply.raw.decode() == raw


async def test_a_huge_event_passes_and_an_endless_one_does_not(gateway: Gateway) -> None:
    huge = delta("x" * 3_000_000)
    gateway.engine.steps = [SSE, chunked(huge), chunked(DONE), END]
    assert (await gateway.chat(stream=True)).raw.decode() == huge + DONE
    gateway.engine.steps = [SSE, *[chunked("x" * 1_000_000)] * 18, UNTIL_GONE]
    last = events((await gateway.chat(stream=True)).raw)[-1]
    assert "more than" in json.loads(last)["error"]["message"]


async def test_usage_is_asked_for_only_when_the_client_does(gateway: Gateway) -> None:
    gateway.engine.steps = stream("a")
    assert "stream_options" not in await gateway.sent(stream=True)
    for asked in ({"stream": True, "stream_options": {"include_usage": True}}, {}):
        body = await gateway.sent(**asked)
        assert body["stream_options"] == {"include_usage": True}


async def test_many_at_once_keep_to_themselves(gateway: Gateway) -> None:
    gateway.engine.queue = [[0.02, *stream(f"text {i}")] for i in range(20)]
    replies = await asyncio.gather(*(gateway.chat(stream=True) for _ in range(20)))
    assert {r.raw.decode() for r in replies} == {delta(f"text {i}") + DONE for i in range(20)}


# ------------------------------------------------------------------------------- clients that go


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_goes_away_cancels_upstream(gateway: Gateway, streamed: bool) -> None:
    gateway.engine.steps = [SSE, chunked(delta("a")), UNTIL_GONE]
    asked = asyncio.create_task(gateway.chat(stream=streamed))
    await asyncio.wait_for(gateway.engine.asked.wait(), 5)
    await asyncio.sleep(0.05)
    asked.cancel()
    await until(gateway.engine.heard[0].gone)
    assert gateway.owner.lost_generations == []
    gateway.engine.steps = REPLY
    assert (await gateway.chat()).status == 200


async def test_a_client_that_goes_while_the_engine_starts_is_let_go(gateway: Gateway) -> None:
    """Nobody waits, so nothing is sent once the engine is there."""
    there = asyncio.Event()
    ready = gateway.owner.ready

    async def slow(name: str):
        await there.wait()
        return await ready(name)

    gateway.owner.ready = slow
    asked = asyncio.create_task(gateway.chat())
    await asyncio.sleep(0.1)
    asked.cancel()
    await asyncio.sleep(0.2)
    there.set()
    await asyncio.sleep(0.1)
    assert gateway.engine.heard == []


async def test_a_slow_reader_gets_everything(gateway: Gateway) -> None:
    gateway.engine.steps = stream(*("x" * 50_000 for _ in range(100)))
    body = {"model": "pocket", "messages": HI, "stream": True}
    got = b""
    async with gateway.session.post(f"{gateway.url}/v1/chat/completions", json=body) as r:
        async for piece in r.content.iter_chunked(200_000):
            got += piece
            await asyncio.sleep(0.005)
    assert len(events(got)) == 101


# ---------------------------------------------------------------------------- engines that break


@pytest.mark.parametrize("how", [ABORT, CLOSE])
async def test_death_mid_stream_is_a_well_formed_error(gateway: Gateway, how: object) -> None:
    half = chunked('data: {"choices": [{"del')
    gateway.engine.steps = [SSE, chunked(delta("a")), half, 0.05, how]
    reply = await gateway.chat(stream=True)
    assert reply.status == 200
    first, last = events(reply.raw)
    assert f"data: {first}\n\n" == delta("a")
    error = json.loads(last)["error"]
    assert error["code"] == "engine_lost" and error["type"] == "engine_error"
    assert gateway.owner.lost_generations == [1]


async def test_a_stream_that_ends_too_early_is_an_error(gateway: Gateway) -> None:
    gateway.engine.steps = [SSE, chunked(delta("a")), END]
    last = events((await gateway.chat(stream=True)).raw)[-1]
    assert "too early" in json.loads(last)["error"]["message"]
    assert gateway.owner.lost_generations == [1]


async def test_the_engines_own_error_within_a_stream_passes(gateway: Gateway) -> None:
    told = 'data: {"error":{"code":500,"message":"out of memory","type":"server_error"}}\n\n'
    gateway.engine.steps = [SSE, chunked(delta("a")), chunked(told), END]
    reply = await gateway.chat(stream=True)
    assert reply.raw.decode() == delta("a") + told
    assert gateway.owner.lost_generations == []


@pytest.mark.parametrize(
    "steps",
    [[ABORT], [CLOSE], [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n", ABORT]],
    ids=["reset", "closed", "within the head"],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_death_before_the_answer_is_a_502_and_not_tried_again(
    gateway: Gateway, steps: list[object], streamed: bool
) -> None:
    gateway.engine.steps = steps
    reply = await gateway.chat(stream=streamed)
    assert reply.status == 502
    assert reply.error["code"] == "engine_lost"
    assert reply.headers["x-qwharf-upstream"] == "error"
    assert len(gateway.engine.heard) == 1
    assert gateway.owner.lost_generations == [1]


@pytest.mark.parametrize("how", [ABORT, CLOSE, END])
async def test_death_within_a_whole_answer_is_a_502(gateway: Gateway, how: object) -> None:
    gateway.engine.steps = [SSE, chunked(delta("a")), 0.02, how]
    reply = await gateway.chat()
    assert reply.status == 502
    assert reply.error["code"] == "engine_lost"
    assert gateway.owner.lost_generations == [1]


async def test_the_engines_error_within_a_whole_answer_keeps_its_status(gateway: Gateway) -> None:
    told = event({"error": {"code": 503, "message": "no room", "type": "unavailable_error"}})
    gateway.engine.steps = [SSE, chunked(delta("a")), chunked(told), END]
    reply = await gateway.chat()
    assert (reply.status, reply.message) == (503, "no room")
    assert gateway.owner.lost_generations == []


async def test_empty_events_of_the_engine_are_left_out(gateway: Gateway) -> None:
    gateway.engine.steps = [SSE, chunked("data: null\n\n"), *stream("a")[1:]]
    reply = await gateway.chat(stream=True)
    assert reply.raw.decode() == delta("a") + DONE
    gateway.engine.steps = [SSE, chunked("data: null\n\n" + delta("null")), *stream("a")[1:]]
    reply = await gateway.chat(stream=True)
    assert reply.raw.decode() == delta("null") + delta("a") + DONE


async def test_an_engine_that_was_dead_already_is_replaced_unnoticed(gateway: Gateway) -> None:
    new = await Engine().start()
    await gateway.engine.stop()

    def replaced() -> None:
        gateway.owner.engine = new
        gateway.owner.generation += 1

    gateway.owner.on_lost = replaced
    assert (await gateway.chat()).status == 200
    assert gateway.owner.lost_generations == [1]
    assert len(new.heard) == 1
    await new.stop()


async def test_an_engine_that_stays_dead_is_a_502(gateway: Gateway) -> None:
    await gateway.engine.stop()
    reply = await gateway.chat()
    assert reply.status == 502
    assert gateway.owner.lost_generations == [1, 1]


async def test_an_engine_that_cannot_start_tells_why(gateway: Gateway) -> None:
    gateway.owner.failure = EngineError(
        "pocket", found="failed to allocate buffer", hint="`qwharf logs pocket`"
    )
    reply = await gateway.chat(stream=True)
    assert reply.status == 503
    assert "failed to allocate buffer" in reply.message
    assert "qwharf logs" in reply.message
    assert reply.error["code"] == "engine_error"
    assert reply.headers["x-qwharf-upstream"] == "error"
    assert reply.headers["Retry-After"]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("status", "kind", "code", "wanted"),
    [
        (400, "exceed_context_size_error", "context_length_exceeded", "invalid_request_error"),
        (400, "invalid_request_error", "refused_by_engine", "invalid_request_error"),
        (500, "server_error", "server_error", "engine_error"),
        (503, "unavailable_error", "unavailable_error", "engine_error"),
    ],
)
async def test_the_engines_refusals_keep_status_and_words(
    gateway: Gateway, status: int, kind: str, code: str, wanted: str, streamed: bool
) -> None:
    gateway.engine.steps = [refusal(status, "the context is full", kind)]
    reply = await gateway.chat(stream=streamed)
    assert reply.status == status
    assert reply.error == {
        "message": "the context is full",
        "type": wanted,
        "param": None,
        "code": code,
    }
    assert reply.headers["x-qwharf-upstream"] == "error"
    assert gateway.owner.lost_generations == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>no</html>",
        b"[" * 100_000,
        b'{"error": "text"}',
        b'{"error": {"message": 5}}',
        b"\xff",
    ],
)
async def test_refusals_without_sense_still_have_the_shape(gateway: Gateway, body: bytes) -> None:
    gateway.engine.steps = [answer(body, 500, "text/html")]
    reply = await gateway.chat()
    assert reply.status == 500
    assert reply.message in ("text", "The engine answered with HTTP 500.")


@pytest.mark.parametrize(
    ("streamed", "steps"),
    [
        (False, [answer(b"garbage")]),
        (False, [answer(WHOLE)]),
        (False, [SSE, chunked(DONE), END]),
        (False, [SSE, chunked(event("text")), chunked(DONE), END]),
        (False, [SSE, chunked("data: {nonsense}\n\n"), chunked(DONE), END]),
        (False, spoken(chunk({"content": 5}))),
        (False, spoken(chunk({"tool_calls": [{"index": 0}]}))),
        (False, spoken(chunk({"tool_calls": "x"}))),
        (False, spoken(event({"choices": 5}))),
        (True, [answer(WHOLE)]),
        (True, [b"\x00\x01\x02 not http\r\n\r\n"]),
        (False, [b"HTTP/1.1 302 Found\r\nLocation: http://a.b/\r\nContent-Length: 0\r\n\r\n"]),
    ],
)
async def test_nonsense_is_a_502(gateway: Gateway, streamed: bool, steps: list[object]) -> None:
    gateway.engine.steps = [*steps, CLOSE]
    reply = await gateway.chat(stream=streamed)
    assert reply.status == 502
    assert reply.error["type"] == "engine_error"


# ------------------------------------------------------------------------------------ the record


async def test_the_log_names_requests_and_never_what_was_said(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "qwharf.gateway")
    secret = [{"role": "user", "content": "my secret"}]
    reply = await gateway.chat(messages=secret, user="me-myself")
    gateway.engine.steps = [SSE, ABORT]
    await gateway.chat(messages=secret, stream=True)
    await gateway.chat(messages=secret, temperature="my secret")
    text = caplog.text
    assert f"{reply.headers['x-request-id']} POST /v1/chat/completions 200" in text
    assert "pocket (broken)" in text and " 400 " in text
    assert "secret" not in text and "myself" not in text


async def test_request_ids_are_kept_if_they_are_sane(gateway: Gateway) -> None:
    kept = await gateway.ask("GET", "/v1/models", headers={"x-request-id": "abc-1"})
    assert kept.headers["x-request-id"] == "abc-1"
    other = await gateway.ask("GET", "/v1/models", headers={"x-request-id": "a b\tc"})
    assert other.headers["x-request-id"] not in ("", "a b\tc")


async def test_a_bug_is_a_500_without_its_traceback(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("the inner workings")

    gateway.owner.all = broken
    reply = await gateway.chat()
    assert reply.status == 500
    assert "inner workings" not in reply.message
    assert reply.headers["x-request-id"] in reply.message
    assert "the inner workings" in caplog.text


async def test_a_client_that_is_cut_off_mid_body_harms_nothing(gateway: Gateway) -> None:
    host, port = gateway.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"
    )
    await writer.drain()
    writer.transport.abort()
    assert (await gateway.chat()).status == 200


async def test_the_session_is_closed_with_the_application(gateway: Gateway) -> None:
    """Otherwise aiohttp warns, and warnings are errors here."""
    assert isinstance(gateway.session, aiohttp.ClientSession)
    assert (await gateway.chat()).status == 200
