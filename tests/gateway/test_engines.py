"""Whatever engine is behind it, a client meets one and the same API."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from engine_words import (
    ANSWERS,
    ARGUMENTS,
    BROKEN,
    CALLS,
    MADE_TOKENS,
    PROMPT_TOKENS,
    SAID,
    THOUGHT,
    TOO_LONG,
    chunk,
    events,
    lines,
    ollama,
    raw,
)
from gateway_client import Gateway
from gateway_doubles import END, Engine, Owner, answer, chunked, spec_of
from hypothesis import given
from hypothesis import strategies as st

from qwharf.catalog import pocket
from qwharf.gateway import engines
from qwharf.gateway.engine_client import key_headers
from qwharf.gateway.engines.text import CALL, CONTENT, REASONING, Breaks, Tags
from qwharf.gateway.errors import ApiError
from qwharf.gateway.requests import ChatRequest, Generation
from qwharf.types import DeploymentSpec, Endpoint

KINDS = engines.kinds()
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}},
}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
MESSAGES = [{"role": "user", "content": "Hi"}]


def spec(kind: str, **fields: Any) -> DeploymentSpec:
    if kind == "openai":
        fields["endpoint"] = Endpoint(url="http://127.0.0.1:1", model="theirs", kind="openai")
    return spec_of(platform=kind, artifact_path=pocket.FOLDER, **fields)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def owner(engine: Engine, kind: str) -> Owner:
    return Owner(engine, spec(kind))


def says(kind: str, data: bytes) -> list[Any]:
    content = b"application/x-ndjson" if kind == "ollama" else b"text/event-stream"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n" % content
    return [head, chunked(data), END]


def read(stream: bytes) -> list[Any]:
    """The events of a stream for a client; its end is checked."""
    *found, end = [e.removeprefix("data: ") for e in stream.decode().split("\n\n") if e]
    assert end == "[DONE]"
    return [json.loads(e) for e in found]


def joined(chunks: list[Any], name: str) -> str:
    deltas = [c["delta"] for e in chunks for c in e["choices"]]
    return "".join(d.get(name) or "" for d in deltas)


# --------------------------------------------------------------------------------------- replies


async def test_a_streamed_answer(gateway: Gateway, kind: str) -> None:
    gateway.engine.steps = says(kind, ANSWERS[kind])
    reply = await gateway.chat(stream=True, stream_options={"include_usage": True})
    assert reply.status == 200, reply.raw
    found = read(reply.raw)
    assert {e["object"] for e in found} == {"chat.completion.chunk"}
    assert len({e["id"] for e in found}) == 1
    assert {e["model"] for e in found} == {"pocket"}
    choices = [c for e in found for c in e["choices"]]
    assert choices[0]["delta"]["role"] == "assistant"
    assert [c["delta"].get("role") for c in choices[1:]] == [None] * (len(choices) - 1)
    assert joined(found, "reasoning_content") == THOUGHT
    assert joined(found, "content") == SAID
    assert [c["finish_reason"] for c in choices if c["finish_reason"]] == ["stop"]
    assert found[-1]["usage"]["prompt_tokens"] == PROMPT_TOKENS
    assert not any("reasoning" in c["delta"] or "thinking" in c["delta"] for c in choices)


async def test_a_whole_answer(gateway: Gateway, kind: str) -> None:
    gateway.engine.steps = says(kind, ANSWERS[kind])
    reply = await gateway.chat()
    assert reply.status == 200, reply.raw
    choice = reply.json["choices"][0]
    assert choice["message"] == {
        "role": "assistant",
        "content": SAID,
        "reasoning_content": THOUGHT,
    }
    assert choice["finish_reason"] == "stop"
    assert reply.json["object"] == "chat.completion"
    assert reply.json["model"] == "pocket"
    assert reply.json["usage"]["completion_tokens"] == MADE_TOKENS


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_call(gateway: Gateway, kind: str, streamed: bool) -> None:
    gateway.engine.steps = says(kind, CALLS[kind])
    reply = await gateway.chat(stream=streamed, tools=[WEATHER])
    assert reply.status == 200, reply.raw
    if streamed:
        found = read(reply.raw)
        parts = [p for e in found for c in e["choices"] for p in c["delta"].get("tool_calls", ())]
        assert {p["index"] for p in parts} == {0}
        ids = [p["id"] for p in parts if p.get("id")]
        assert len(ids) == 1
        name = "".join(p["function"].get("name", "") for p in parts)
        arguments = "".join(p["function"].get("arguments", "") for p in parts)
        (finish,) = [f for e in found for c in e["choices"] if (f := c["finish_reason"])]
        assert joined(found, "content") == ""
    else:
        (call,) = reply.json["choices"][0]["message"]["tool_calls"]
        assert call["id"] and call["type"] == "function"
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        finish = reply.json["choices"][0]["finish_reason"]
        assert reply.json["choices"][0]["message"]["content"] == ""
    assert (name, json.loads(arguments), finish) == ("get_weather", ARGUMENTS, "tool_calls")


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "llama.cpp"])
async def test_only_one_call_where_only_one_is_wanted(gateway: Gateway, kind: str) -> None:
    two = CALLS[kind]
    if kind in ("mlx", "openai"):
        tag = "<tool_call>" + CALLS["openai"].decode().split("<tool_call>")[1].split('"}, "fin')[0]
        delta = {"role": "assistant", "content": json.loads(f'"{tag}"') * 2}
        two = events(chunk(delta), chunk({}, "stop"))
    elif kind == "ollama":
        call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Köln"}}\n</tool_call>\n'
        two = lines(raw(call * 2), raw("", done=True, done_reason="stop"))
    else:
        second = {"index": 1, "id": "b", "function": {"name": "get_weather", "arguments": "{}"}}
        two = two.replace(
            b"data: [DONE]", events(chunk({"tool_calls": [second]}), done=False) + b"data: [DONE]"
        )
    gateway.engine.steps = says(kind, two)
    reply = await gateway.chat(tools=[WEATHER], parallel_tool_calls=False)
    assert len(reply.json["choices"][0]["message"]["tool_calls"]) == 1


async def test_plain_completion(gateway: Gateway, kind: str) -> None:
    if kind == "ollama":
        data = lines(raw("Paris"), raw(".", done=True, done_reason="stop", eval_count=2))
    else:
        frame = {"id": "cmpl-1", "object": "text_completion", "created": 5, "model": "pocket"}
        text = [
            {"index": 0, "text": t, "finish_reason": f} for t, f in (("Paris", None), (".", "stop"))
        ]
        data = events(*(frame | {"choices": [t]} for t in text))
    gateway.engine.steps = says(kind, data)
    body = {"model": "pocket", "prompt": "The capital is <think>", "max_tokens": 4}
    reply = await gateway.post("/v1/completions", body)
    assert reply.status == 200, reply.raw
    assert reply.json["choices"][0]["text"] == "Paris."
    assert reply.json["object"] == "text_completion"
    sent = gateway.engine.body
    assert sent["prompt"] == "The capital is <think>"
    assert sent.get("raw", True) is True


async def test_a_plain_completion_without_a_limit(gateway: Gateway, kind: str) -> None:
    """Left out, most engines take 16; SGLang takes no null, and refuses more than is left."""
    gateway.engine.steps = [answer({"error": {"message": "no"}}, 500)]
    await gateway.post("/v1/completions", {"model": "pocket", "prompt": "Grüße"})
    sent = gateway.engine.body
    if kind in ("vllm", "lmstudio", "openai"):
        assert sent["max_tokens"] is None
    elif kind == "sglang":
        assert sent["max_tokens"] == 2048 - 7 - 1
    else:
        assert "max_tokens" not in sent or sent["max_tokens"] >= 2048


async def test_log_probabilities_in_the_old_form_of_completions(
    gateway: Gateway, kind: str
) -> None:
    if kind not in ("vllm", "sglang"):
        pytest.skip("the other kinds give another form, or none")
    old = {
        "text_offset": [0],
        "tokens": ["Paris"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{"Paris": -0.5, "Rome": -1.0}],
    }
    choice = {"index": 0, "text": "Paris", "finish_reason": "stop", "logprobs": old}
    event = {"id": "1", "object": "text_completion", "model": "x", "choices": [choice]}
    gateway.engine.steps = says(kind, events(event))
    reply = await gateway.post("/v1/completions", {"model": "pocket", "prompt": "a", "logprobs": 2})
    (entry,) = reply.json["choices"][0]["logprobs"]["content"]
    assert (entry["token"], entry["logprob"]) == ("Paris", -0.5)
    assert [t["token"] for t in entry["top_logprobs"]] == ["Paris", "Rome"]


# -------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize("streamed", [True, False])
async def test_too_long_a_prompt_has_one_code(gateway: Gateway, kind: str, streamed: bool) -> None:
    gateway.engine.steps = [answer(TOO_LONG[kind], 400)]
    reply = await gateway.chat(stream=streamed)
    assert reply.status == 400
    assert reply.error["code"] == "context_length_exceeded"
    assert "context" in reply.message
    assert not reply.message.startswith("{"), "JSON within the text is taken apart"


@pytest.mark.parametrize("kind", list(BROKEN))
async def test_an_error_within_a_stream(gateway: Gateway, kind: str) -> None:
    gateway.engine.steps = says(kind, BROKEN[kind])
    reply = await gateway.chat(stream=True)
    *said, last = [e for e in reply.raw.decode().split("\n\n") if e]
    assert any("Hi" in e for e in said)
    assert json.loads(last.removeprefix("data: "))["error"]["message"] == "EngineCore died"
    whole = await gateway.chat()
    assert whole.status == 500
    assert whole.message == "EngineCore died"


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_stream_that_ends_without_a_word(
    gateway: Gateway, kind: str, streamed: bool
) -> None:
    ended = ANSWERS[kind].replace(b"data: [DONE]\n\n", b"")
    if kind == "ollama":
        ended = ended[: ended.rindex(b'{"model"')]
    gateway.engine.steps = says(kind, ended)
    reply = await gateway.chat(stream=streamed)
    last = reply.raw.decode().strip().split("\n\n")[-1].removeprefix("data: ")
    assert json.loads(last)["error"]["code"] == "engine_lost"
    assert gateway.owner.lost_generations == [1]


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "engine_key_refused"), (403, "engine_key_refused"), (404, "engine_lacks_model")],
)
async def test_what_a_client_could_take_for_its_own_fault(
    gateway: Gateway, kind: str, status: int, code: str
) -> None:
    gateway.engine.steps = [answer({"error": {"message": "no", "type": "x"}}, status)]
    reply = await gateway.chat()
    assert reply.status == 502
    assert reply.error["code"] == code


async def test_embeddings_are_not_to_be_had(gateway: Gateway, kind: str) -> None:
    gateway.engine.steps = [answer({"error": {"message": "no", "type": "x"}}, 501)]
    reply = await gateway.post("/v1/embeddings", {"model": "pocket", "input": "a"})
    assert reply.status == 501
    assert reply.error["code"] == "no_embeddings"


# --------------------------------------------------------------------------------- what is sent


async def sent(gateway: Gateway, kind: str, **fields: Any) -> dict[str, Any]:
    gateway.engine.steps = says(kind, ANSWERS[kind])
    reply = await gateway.chat(**fields)
    assert reply.status == 200, reply.raw
    return gateway.engine.body


async def test_every_request_is_a_stream_under_the_engines_name(
    gateway: Gateway, kind: str
) -> None:
    body = await sent(gateway, kind)
    assert body["stream"] is True
    assert body["model"] == "pocket"


async def test_qwen3s_sampling_is_said(gateway: Gateway, kind: str) -> None:
    for thinking, temperature, top_p in ((True, 0.6, 0.95), (False, 0.7, 0.8)):
        body = await sent(gateway, kind, chat_template_kwargs={"enable_thinking": thinking})
        said = body.get("options", body)
        assert (said["temperature"], said["top_p"]) == (temperature, top_p)
        if kind != "openai":
            assert (said["top_k"], said["min_p"]) == (20, 0)
        assert said["presence_penalty"] == (0 if thinking else 1.5)


async def test_thinking_is_switched_off(gateway: Gateway, kind: str) -> None:
    body = await sent(gateway, kind, reasoning_effort="none")
    if kind == "ollama":
        assert body["prompt"].endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    elif kind == "lmstudio":
        assert body["reasoning_effort"] == "none"
        assert "chat_template_kwargs" not in body
    else:
        assert body["chat_template_kwargs"] == {"enable_thinking": False}


async def test_choices_are_requests(gateway: Gateway, kind: str) -> None:
    gateway.engine.steps = says(kind, ANSWERS[kind])
    reply = await gateway.chat(n=2, seed=2**33)
    assert [c["index"] for c in reply.json["choices"]] == [0, 1]
    bodies = [h.body for h in gateway.engine.heard]
    seeds = [b.get("options", b)["seed"] for b in bodies]
    assert seeds[1] == seeds[0] + 1
    assert all(0 <= s < 2**32 for s in seeds)
    assert not any("n" in b for b in bodies)


async def test_a_limit_that_nobody_set_refuses_nothing(gateway: Gateway, kind: str) -> None:
    """VLLM and SGLang refuse a prompt together with a limit beyond the context."""
    body = await sent(gateway, kind)
    limit = body.get("max_tokens", body.get("options", {}).get("num_predict"))
    if kind in ("vllm", "sglang", "lmstudio", "openai"):
        assert limit is None
    assert (await sent(gateway, kind, max_tokens=7)).get("max_tokens", 7) == 7


LACKS = {
    "logprobs": {"logprobs": True},
    "response_format": {"response_format": SCHEMA},
    "tool_choice": {"tools": [WEATHER], "tool_choice": "required"},
    "thinking_budget": {"thinking_budget": 100},
    "logit_bias": {"logit_bias": {"5": 1}},
    "ignore_eos": {"ignore_eos": True},
    "cache_prompt": {"cache_prompt": False},
    "top_k": {"top_k": 5},
    "min_p": {"min_p": 0.1},
    "repetition_penalty": {"repeat_penalty": 1.1},
    "chat_template_kwargs": {"chat_template_kwargs": {"other": 1}},
    "messages": {"messages": [*MESSAGES, {"role": "assistant", "content": "So"}]},
}


@pytest.mark.parametrize("wanted", list(LACKS))
async def test_nothing_is_ignored_in_silence(gateway: Gateway, kind: str, wanted: str) -> None:
    """What an engine lacks is refused by name; what it has is sent."""
    lacking = getattr(engines.of(spec(kind)), "cannot", {})
    gateway.engine.steps = says(kind, ANSWERS[kind])
    reply = await gateway.chat(**LACKS[wanted])
    if wanted in lacking:
        assert reply.status == 400
        assert (reply.error["param"], reply.error["code"]) == (wanted, "unsupported_by_engine")
        assert gateway.engine.heard == []
    else:
        assert reply.status == 200, reply.raw
        said = json.dumps(gateway.engine.body) + json.dumps(gateway.engine.body.get("options"))
        marks = {
            "thinking_budget": "100",
            "cache_prompt": "cache_",
            "messages": "So",
            "tool_choice": "tool_call>\\n" if kind == "ollama" else "required",
            "response_format": '"type": "object"',
            "repetition_penalty": "1.1",
            "chat_template_kwargs": '"other": 1' if kind != "ollama" else "Hi",
        }
        assert marks.get(wanted, f'"{wanted}"') in said


@pytest.mark.parametrize("kind", ["ollama"])
async def test_ollama_is_told_everything_each_time(gateway: Gateway, kind: str) -> None:
    body = await sent(gateway, kind, max_tokens=9, tools=[WEATHER])
    assert gateway.engine.heard[-1].path == "/api/generate"
    assert (body["truncate"], body["shift"], body["keep_alive"]) == (False, False, -1)
    assert body["options"]["num_ctx"] == 2048
    assert body["options"]["num_predict"] == 9
    assert '"name": "get_weather"' in body["prompt"]
    assert body["prompt"].endswith("<|im_start|>assistant\n")
    forced = await sent(gateway, kind, tools=[WEATHER], tool_choice="required")
    assert forced["prompt"].endswith("<think>\n\n</think>\n\n<tool_call>\n")
    gateway.engine.steps = says(
        kind, lines(ollama({"thinking": THOUGHT}), ollama({"content": "{}"}, done=True))
    )
    reply = await gateway.chat(response_format=SCHEMA)
    assert gateway.engine.heard[-1].path == "/api/chat"
    assert gateway.engine.body["format"] == {"type": "object"}
    assert gateway.engine.body["think"] is True
    assert reply.json["choices"][0]["message"]["reasoning_content"] == THOUGHT


async def test_an_adopted_ollama_is_not_told_how_to_load(engine: Engine) -> None:
    url = Endpoint(url="http://127.0.0.1:1", model="qwen3:8b", kind="ollama")
    turns = [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "so",
            "tool_calls": [
                {"id": "a", "function": {"name": "get_weather", "arguments": '{"city": "x"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "5"},
    ]
    request = ChatRequest(messages=turns, generation=Generation(), thinking=False)
    wire = engines.of(spec("ollama", endpoint=url)).chat(request, spec("ollama", endpoint=url))
    (body,) = wire.bodies
    assert wire.path == "/api/chat"
    assert "keep_alive" not in body and "num_ctx" not in body["options"]
    assert body["think"] is False
    assert body["messages"][1]["thinking"] == "so"
    assert body["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"city": "x"}
    assert body["messages"][2]["tool_name"] == "get_weather"


def test_an_unknown_kind_of_endpoint_is_spoken_to_as_any_other() -> None:
    url = Endpoint(url="http://127.0.0.1:1", model="x", kind="tomorrow's")
    assert type(engines.of(spec_of(endpoint=url))) is type(engines.of(spec("openai")))


# ------------------------------------------------------------------------------------------ keys


async def test_the_key_of_somebody_elses_server(
    gateway: Gateway, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = Endpoint(url="http://x", model="m", kind=kind, api_key_variable="THEIR_KEY")
    gateway.owner.deployments = Owner(gateway.engine, spec_of(endpoint=url)).deployments
    monkeypatch.delenv("THEIR_KEY", raising=False)
    reply = await gateway.chat()
    assert reply.status == 503
    assert "THEIR_KEY" in reply.message
    assert gateway.engine.heard == []


def test_lm_studio_is_given_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LM_API_TOKEN", raising=False)
    assert key_headers(spec("lmstudio")) == {}
    monkeypatch.setenv("LM_API_TOKEN", "sk-lm-1")
    assert key_headers(spec("lmstudio")) == {"Authorization": "Bearer sk-lm-1"}
    assert key_headers(spec("vllm")) == {}


# --------------------------------------------------------------------------------------- streams


def reader(kind: str) -> Any:
    request = ChatRequest(messages=MESSAGES, generation=Generation(), tools=[WEATHER])
    wire = engines.of(spec(kind)).chat(request, spec(kind))
    assert wire.read is not None
    return wire.read()


def through(kind: str, pieces: list[bytes]) -> list[Any]:
    stream = reader(kind)
    made = b"".join(stream.feed(p) for p in pieces if p)
    assert stream.complete
    return read(made)


def told(found: list[Any]) -> tuple[str, str, list[Any]]:
    parts = [p for e in found for c in e["choices"] for p in c["delta"].get("tool_calls", ())]
    calls = [p["function"] for p in parts]
    return joined(found, "reasoning_content"), joined(found, "content"), calls


@given(kind=st.sampled_from(KINDS), call=st.booleans(), cuts=st.lists(st.integers(0, 3000)))
def test_it_does_not_matter_how_the_network_cuts(kind: str, call: bool, cuts: list[int]) -> None:
    data = (CALLS if call else ANSWERS)[kind]
    at = sorted({0, len(data), *(c % len(data) for c in cuts)})
    pieces = [data[a:b] for a, b in itertools.pairwise(at)]
    assert told(through(kind, pieces)) == told(through(kind, [data]))


@given(
    kind=st.sampled_from([k for k in KINDS if k != "llama.cpp"]),
    junk=st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from([b"{}", b"null", b"[]", b"5", b'{"choices": 5}', b'{"error": 5}']),
            st.sampled_from([b'{"choices": [{}]}', b'{"message": 5}', b'{"done": true}']),
            st.sampled_from([b'{"choices": [{"delta": {"content": 5}}]}', b'{"response": 5}']),
            st.sampled_from([b'{"choices":[{"delta":{"tool_calls":[5]}}]}', b'{"logprobs": 5}']),
        ),
        max_size=6,
    ),
)
def test_nonsense_is_told_as_such(kind: str, junk: list[bytes]) -> None:
    stream = reader(kind)
    for data in junk:
        try:
            made = stream.feed(data + b"\n" if kind == "ollama" else b"data: " + data + b"\n\n")
        except ApiError as e:
            assert e.status == 502
            return
        for event in made.split(b"\n\n"):
            if event and event != b"data: [DONE]":
                json.loads(event.removeprefix(b"data: "))


# ------------------------------------------------------------------------------------------ text


@given(st.data())
def test_tags_are_found_however_they_are_cut(data: st.DataObject) -> None:
    text = data.draw(
        st.lists(
            st.sampled_from(
                ["<think>", "</think>", "<tool_call>", "</tool_call>", "<", "</t", "a", "\n", "<t"]
            )
        ).map("".join)
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    whole, cut = Tags({REASONING, CALL}), Tags({REASONING, CALL})
    at = [0, *cuts, len(text)]
    pieces = [p for a, b in itertools.pairwise(at) for p in cut.feed(text[a:b])]
    assert merged([*pieces, *cut.end()]) == merged([*whole.feed(text), *whole.end()])


def merged(pieces: list[tuple[str, str]]) -> list[tuple[str, str]]:
    made: list[tuple[str, str]] = []
    for kind, text in pieces:
        if made and made[-1][0] == kind != CALL:
            made[-1] = (kind, made[-1][1] + text)
        else:
            made.append((kind, text))
    return made


def test_breaks_around_an_empty_thought_are_left_out() -> None:
    """As after ``/no_think``."""
    breaks = Breaks()
    assert breaks.reasoning("\n") + breaks.reasoning("\n") == ""
    assert breaks.content("\n") + breaks.content("\nHi\n") == "Hi\n"
    assert breaks.content("\nyou") == "\nyou"


def test_breaks_within_a_thought_stay() -> None:
    breaks = Breaks()
    pieces = [breaks.reasoning(p) for p in ("\n", "a\n", "\n", "b", "\n")]
    assert "".join(pieces) == "a\n\nb"


def test_breaks_of_an_answer_without_thought_stay() -> None:
    assert Breaks().content("\n\nHi") == "\n\nHi"


def test_a_call_that_is_never_closed_is_text() -> None:
    tags = Tags({CALL})
    assert list(tags.feed("a<tool_call>{")) == [(CONTENT, "a")]
    assert list(tags.end()) == [(CONTENT, "<tool_call>{")]


def test_tags_that_do_not_count_are_text() -> None:
    tags = Tags({REASONING})
    assert list(tags.feed("<tool_call>")) == [(CONTENT, "<tool_call>")]


def test_the_table_is_complete() -> None:
    from qwharf import platforms

    assert set(platforms.names()) - {"endpoint"} <= set(KINDS)
    assert set(ANSWERS) == set(CALLS) == set(TOO_LONG) == set(KINDS)
    assert Path(pocket.FOLDER).is_dir()
