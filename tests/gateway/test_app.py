"""Routes, names, the key, foreign pages, and bodies that are none."""

import asyncio
import gzip
import json
from typing import Any

import pytest
from gateway_client import HI, Gateway
from gateway_doubles import Engine, Owner, spec_of

from qwharf.gateway.body import MAX_BODY_BYTES, MAX_CONTAINERS, MAX_DEPTH

# -------------------------------------------------------------------------------------- routes


async def test_health_and_models(gateway: Gateway) -> None:
    assert (await gateway.ask("GET", "/health")).json["status"] == "ok"
    listed = (await gateway.ask("GET", "/v1/models")).json
    assert listed["object"] == "list"
    (entry,) = listed["data"]
    assert (entry["id"], entry["object"], entry["max_model_len"]) == ("pocket", "model", 2048)
    assert entry["qwharf"]["thinking"] == "hybrid"
    assert (await gateway.ask("GET", "/v1/models/pocket")).json == entry
    assert (await gateway.ask("GET", "/v1/models/qwen3:test")).json == entry
    gone = await gateway.ask("GET", "/v1/models/other")
    assert (gone.status, gone.error["code"]) == (404, "model_not_found")
    gateway.owner.state("stopped")
    assert (await gateway.ask("GET", "/v1/models")).json["data"] == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("POST", "/v1/images/generations", 404),
        ("POST", "/v1/responses", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("OPTIONS", "/v1/models", 405),
        ("GET", "/v1/models/../../etc/passwd", 404),
        ("GET", "/%00", 404),
    ],
)
async def test_other_routes_and_methods(
    gateway: Gateway, method: str, path: str, status: int
) -> None:
    reply = await gateway.ask(method, path)
    assert reply.status == status
    assert reply.error["type"] == "invalid_request_error"
    assert status != 405 or reply.headers["Allow"]


# --------------------------------------------------------------------------------------- names


async def test_a_name_is_needed_and_must_be_known(gateway: Gateway) -> None:
    missing = await gateway.chat(model=None)
    assert (missing.status, missing.error["param"]) == (400, "model")
    assert "`pocket`" in missing.message
    assert (await gateway.chat(model=5)).status == 400
    unknown = await gateway.chat(model="gpt-4o")
    assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")
    assert "`pocket`" in unknown.message
    assert (await gateway.chat(model="QWEN3:test")).status == 200
    assert gateway.engine.body["model"] == "pocket"
    gateway.owner.deployments.clear()
    assert "qwharf up" in (await gateway.chat()).message


async def test_a_models_name_serves_while_it_is_unambiguous(
    engine: Engine, owner: Owner, gateway: Gateway
) -> None:
    owner.deployments = Owner(engine, spec_of("a"), spec_of("b")).deployments
    reply = await gateway.chat(model="qwen3:test")
    assert reply.status == 404
    assert "`a`, `b`" in reply.message


# ----------------------------------------------------------------------------------------- key


class TestWithKey:
    @pytest.fixture
    def api_key(self) -> str:
        return "sécret"

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Bearer"},
            {"Authorization": "sécret"},
            {"Authorization": "Basic sécret"},
            {"x-api-key": "sécre"},
        ],
    )
    async def test_every_route_but_health_needs_it(
        self, gateway: Gateway, headers: dict[str, str]
    ) -> None:
        for path in ("/v1/models", "/nowhere", "/qwharf/v1/status"):
            reply = await gateway.ask("GET", path, headers=headers)
            assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
        reply = await gateway.post("/v1/chat/completions", {}, headers=headers)
        assert reply.status == 401
        assert (await gateway.ask("GET", "/health", headers=headers)).status == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {"Authorization": "Bearer sécret"},
            {"Authorization": "bearer  sécret"},
            {"x-api-key": "sécret"},
            {"Authorization": "Bearer sécret", "Host": "box.example.com", "Origin": "https://a.b"},
        ],
    )
    async def test_with_it_all_names_are_served(
        self, gateway: Gateway, headers: dict[str, str]
    ) -> None:
        assert (await gateway.ask("GET", "/v1/models", headers=headers)).status == 200


# ------------------------------------------------------------------------------- foreign pages


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "", "[::2]:1"],
)
async def test_foreign_hosts_are_refused(gateway: Gateway, host: str) -> None:
    for path in ("/v1/models", "/health", "/v1/chat/completions"):
        reply = await gateway.ask("GET", path, headers={"Host": host})
        assert (reply.status, reply.error["code"]) == (403, "foreign_host")


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8383", "127.0.0.1:1", "127.1.2.3", "[::1]:8383", "app.localhost"],
)
async def test_names_of_this_machine_are_served(gateway: Gateway, host: str) -> None:
    assert (await gateway.ask("GET", "/v1/models", headers={"Host": host})).status == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example", "http://[", "x"]
)
async def test_foreign_pages_are_refused(gateway: Gateway, origin: str) -> None:
    body = {"model": "pocket", "messages": HI}
    headers = {"Origin": origin, "Content-Type": "text/plain"}
    reply = await gateway.post("/v1/chat/completions", body, headers=headers)
    assert (reply.status, reply.error["code"]) == (403, "foreign_origin")
    assert "Access-Control-Allow-Origin" not in reply.headers
    assert gateway.engine.heard == []


async def test_local_pages_are_served(gateway: Gateway) -> None:
    headers = {"Origin": "http://localhost:3000"}
    reply = await gateway.ask("GET", "/v1/models", headers=headers)
    assert reply.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-a"}
    reply = await gateway.ask("OPTIONS", "/v1/chat/completions", headers=headers | asked)
    assert reply.status == 204
    assert reply.headers["Access-Control-Allow-Headers"] == "x-a"
    evil = {"Origin": "https://evil.example"} | asked
    reply = await gateway.ask("OPTIONS", "/v1/chat/completions", headers=evil)
    assert reply.status == 403


# -------------------------------------------------------------------------------------- bodies


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"model": "x", "messages": [', "not JSON"),
        (b"[]", "a list"),
        (b'"text"', "expected a JSON object"),
        (b"5", "expected a JSON object"),
        (b"null", "expected a JSON object"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"model": "a", "model": "b"}', "twice"),
        (b'{"a": {"b": 1, "b": 2}}', "twice"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b"\xff\xfe{\x00}\x00", "UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "JSON"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "deeper"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "deeper"),
        (b"[" * (MAX_CONTAINERS + 1), "brackets"),
        (b'{"a": "\x01"}', "not JSON"),
    ],
)
async def test_what_is_not_a_json_object_is_refused(
    gateway: Gateway, raw: bytes, words: str
) -> None:
    reply = await gateway.post("/v1/chat/completions", raw)
    assert reply.status == 400
    assert words in reply.message
    assert reply.error["code"] == "invalid_json"


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"pocket","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"pocket","messages":[{"role":"user","content":"a"}],"chat_template_kwargs":'
        b'{"a":1e999}}',
    ],
)
async def test_what_json_cannot_hold_does_not_reach_the_engine(
    gateway: Gateway, raw: bytes
) -> None:
    assert (await gateway.post("/v1/chat/completions", raw)).error["code"] == "invalid_json"
    assert gateway.engine.heard == []


async def test_depth_is_counted_in_nesting_not_in_brackets(gateway: Gateway) -> None:
    flat = {"style": [[i] for i in range(1000)]}
    assert (await gateway.chat(chat_template_kwargs=flat)).status == 200
    text = [{"role": "user", "content": "{[" * 10_000}]
    assert (await gateway.chat(messages=text)).status == 200
    deep: Any = 1
    for _ in range(MAX_DEPTH - 2):
        deep = [deep]
    assert (await gateway.chat(chat_template_kwargs={"a": deep})).status == 200
    assert (await gateway.chat(chat_template_kwargs={"a": [[deep]]})).status == 400


async def test_the_limit_of_a_body(gateway: Gateway) -> None:
    def sized(size: int) -> bytes:
        frame = b'{"model":"pocket","messages":[{"role":"user","content":"%s"}]}'
        return frame % (b"x" * (size - len(frame) + 2))

    assert (await gateway.post("/v1/chat/completions", sized(MAX_BODY_BYTES))).status == 200
    reply = await gateway.post("/v1/chat/completions", sized(MAX_BODY_BYTES + 1))
    assert (reply.status, reply.error["code"]) == (413, "request_too_large")
    assert f"{MAX_BODY_BYTES:,}" in reply.message


async def test_the_limit_counts_what_comes_out_of_gzip(gateway: Gateway) -> None:
    bomb = gzip.compress(b'{"a": "' + b"x" * (2 * MAX_BODY_BYTES))
    headers = {"Content-Encoding": "gzip"}
    reply = await gateway.post("/v1/chat/completions", bomb, headers=headers)
    assert reply.status == 413
    good = gzip.compress(json.dumps({"model": "pocket", "messages": HI}).encode())
    assert (await gateway.post("/v1/chat/completions", good, headers=headers)).status == 200
    reply = await gateway.post("/v1/chat/completions", b"no gzip", headers=headers)
    assert reply.status == 400
    assert reply.message


async def test_a_body_without_a_declared_length_is_limited_too(gateway: Gateway) -> None:
    async def pieces():
        for _ in range(20):
            yield b"x" * 2**20

    reply = await gateway.ask("POST", "/v1/chat/completions", data=pieces())
    assert reply.status == 413


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
    ],
)
async def test_what_is_not_http_harms_nothing(gateway: Gateway, raw: bytes) -> None:
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(raw)
    writer.write_eof()
    told = await asyncio.wait_for(reader.read(), 5)
    assert not told or told.startswith(b"HTTP/1.")
    assert b"Traceback" not in told
    writer.close()
    assert (await gateway.chat()).status == 200
