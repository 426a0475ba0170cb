"""The gateway before the real llama.cpp and the pocket model, seen by OpenAI's own client."""

import asyncio
import json
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web
from gateway_doubles import deployment_of

from qwharf import platforms
from qwharf.artifacts.convert import convert
from qwharf.catalog import pocket
from qwharf.gateway.app import build
from qwharf.gateway.upstream import Upstream
from qwharf.types import Deployment, DeploymentSpec, Format

pytestmark = pytest.mark.engines

CONTEXT = 16_384
"""More than the model was made for, so that a reply can last while something happens to it."""
CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
OFF: dict[str, Any] = {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}
ENDLESS: dict[str, Any] = {
    "model": "pocket",
    "messages": CAPITAL,
    "max_tokens": 15_000,
    "extra_body": {"ignore_eos": True},
}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def until(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.05)
    return found


def get(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def post(url: str, body: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


class Owner:
    """Keeps one engine running, as the daemon's supervisor does."""

    def __init__(self, spec: DeploymentSpec, folder: Path) -> None:
        self.spec, self.folder = spec, folder
        self.generation = 0
        self.child: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            launch = platforms.get("llama.cpp").launch(self.spec, free.getsockname()[1])
        argv = list(launch.argv)
        argv[argv.index("--ctx-size") + 1] = str(CONTEXT)
        with (self.folder / "engine.log").open("ab") as log:
            self.child = subprocess.Popen(argv, stderr=log, stdin=subprocess.DEVNULL)
        self.generation += 1
        self.url = launch.base_url
        until(lambda: get(f"{self.url}/health"))

    def stop(self) -> None:
        if self.child:
            self.child.kill()
            self.child.wait()

    def all(self) -> list[Deployment]:
        return [deployment_of(self.spec)]

    async def ready(self, name: str) -> Upstream:
        if self.child is None or self.child.poll() is not None:
            await asyncio.to_thread(self.start)
        return Upstream(
            spec=self.spec, url=self.url, model=self.spec.name, generation=self.generation
        )

    def lost(self, upstream: Upstream) -> None:
        if self.child and upstream.generation == self.generation:
            self.child.wait(10)

    def is_busy(self) -> bool:
        return any(slot["is_processing"] for slot in get(f"{self.url}/slots"))


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    folder = tmp_path_factory.mktemp("engine")
    model = pocket.model()
    assert model is not None
    format = Format("gguf", "q8_0")
    made = convert(pocket.FOLDER, format, folder / "pocket.gguf")
    owner = Owner(
        DeploymentSpec(
            name="pocket",
            platform="llama.cpp",
            model=model.name,
            thinking=model.thinking,
            format=format,
            artifact_id="0" * 64,
            artifact_path=made.path,
            architecture=model.architecture,
            context_tokens=2048,
            threads=1,
            sampling=model.sampling,
        ),
        folder,
    )
    owner.start()
    yield owner
    owner.stop()


@pytest.fixture(scope="module")
def client(owner: Owner) -> Iterator[openai.OpenAI]:
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(build(owner, api_key="key"))

    async def start() -> str:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}/v1"

    url = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    with openai.OpenAI(base_url=url, api_key="key", max_retries=0, timeout=120) as client:
        yield client
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def together(stream: Any) -> tuple[str, str, str | None]:
    """(reasoning, content, finish_reason) of a stream."""
    reasoning = content = ""
    finish = None
    for chunk in stream:
        for choice in chunk.choices:
            reasoning += getattr(choice.delta, "reasoning_content", None) or ""
            content += choice.delta.content or ""
            finish = choice.finish_reason or finish
    return reasoning, content, finish


# ---------------------------------------------------------------------------------------- chat


def test_the_model_is_listed_and_others_are_not_found(client: openai.OpenAI) -> None:
    assert [m.id for m in client.models.list()] == ["pocket"]
    assert client.models.retrieve("pocket").owned_by == "qwharf"
    with pytest.raises(openai.NotFoundError) as e:
        client.chat.completions.create(model="gpt-4o", messages=CAPITAL)
    assert e.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()


def test_thinking_on_and_off(client: openai.OpenAI) -> None:
    def ask(**how: Any) -> Any:
        reply = client.chat.completions.create(
            model="pocket", messages=CAPITAL, max_tokens=256, temperature=0, **how
        )
        return reply.choices[0].message

    assert getattr(ask(), "reasoning_content", None)
    for off in (OFF, {"reasoning_effort": "none"}):
        message = ask(**off)
        assert not getattr(message, "reasoning_content", None)
        assert message.content and "<think>" not in message.content
    with pytest.raises(openai.BadRequestError, match="true or false"):
        ask(extra_body={"chat_template_kwargs": {"enable_thinking": "false"}})


@pytest.mark.parametrize("how", [{}, OFF], ids=["thinking", "not thinking"])
def test_streamed_and_whole_are_the_same(client: openai.OpenAI, how: dict[str, Any]) -> None:
    asked = {"model": "pocket", "messages": CAPITAL, "max_tokens": 200, "temperature": 0, **how}
    client.chat.completions.create(**asked)  # so that both find the same cache
    choice = client.chat.completions.create(**asked).choices[0]
    streamed = together(client.chat.completions.create(**asked, stream=True))
    whole = (
        getattr(choice.message, "reasoning_content", None) or "",
        choice.message.content,
        choice.finish_reason,
    )
    assert streamed == whole


SCHEMA: Any = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
FORM: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
SUNNY: Any = [{"role": "user", "content": "What is the weather in Berlin?"}]
FORMS: dict[str, dict[str, Any]] = {
    "thinking": {},
    "off": OFF,
    "cut while thinking": {"max_tokens": 3},
    "cut": OFF | {"max_tokens": 3},
    "stopped": OFF | {"stop": ["a", "i"]},
    "log probabilities": OFF | {"logprobs": True, "top_logprobs": 2, "max_tokens": 8},
    "schema": OFF | {"response_format": FORM},
    "schema while thinking": {"response_format": FORM},
    "tool": OFF | {"messages": SUNNY, "tools": [WEATHER], "tool_choice": "required"},
    "tool while thinking": {"tools": [WEATHER], "tool_choice": "required"},
    "cut tool": OFF | {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 14},
    "tools not needed": OFF | {"tools": [WEATHER]},
    "tools and log probabilities": OFF | {"tools": [WEATHER], "logprobs": True, "max_tokens": 20},
    "wide characters": OFF | {"messages": [{"role": "user", "content": "Repeat: Grüße 你好 🚀"}]},
}


def plain(reply: Any) -> Any:
    """A reply without what differs each time."""
    kept = {k: v for k, v in reply.items() if k not in ("id", "created", "timings")}
    kept["usage"] = {k: v for k, v in kept["usage"].items() if k != "prompt_tokens_details"}
    for call in kept["choices"][0]["message"].get("tool_calls", ()):
        assert call.pop("id")
    return kept


@pytest.mark.parametrize("name", FORMS)
def test_a_whole_answer_is_the_engines_own(client: openai.OpenAI, owner: Owner, name: str) -> None:
    asked: dict[str, Any] = {"model": "pocket", "messages": CAPITAL, "temperature": 0}
    asked |= {"max_tokens": 160} | FORMS[name]
    ours = client.chat.completions.with_raw_response.create(**asked)
    body = {k: v for k, v in asked.items() if k != "extra_body"} | asked.get("extra_body", {})
    body |= {"top_p": 0.8, "top_k": 20, "min_p": 0, "logit_bias": None}
    if body.get("logprobs"):
        body.setdefault("top_logprobs", 1)
    theirs = post(f"{owner.url}/v1/chat/completions", body)
    assert plain(json.loads(ours.content)) == plain(theirs)


@pytest.mark.parametrize("how", [{}, OFF], ids=["thinking", "not thinking"])
def test_a_begun_answer_is_continued(client: openai.OpenAI, how: dict[str, Any]) -> None:
    """Streamed or whole, what comes is what is new; the engine's own whole answer repeats all."""
    turns: Any = [*CAPITAL, {"role": "assistant", "content": "The capital of France"}]
    asked: dict[str, Any] = {"model": "pocket", "messages": turns, "temperature": 0, **how}
    whole = client.chat.completions.create(**asked, max_tokens=30).choices[0].message.content
    streamed = together(client.chat.completions.create(**asked, max_tokens=30, stream=True))
    assert whole == streamed[1]
    assert whole and "The capital of" not in whole


def test_usage_is_streamed_when_asked_for(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "pocket", "messages": CAPITAL, "max_tokens": 5, **OFF}
    plain = list(client.chat.completions.create(**asked, stream=True))
    assert all(c.usage is None for c in plain)
    usage = {"include_usage": True}
    *_, last = client.chat.completions.create(**asked, stream=True, stream_options=usage)
    assert last.choices == []
    whole = client.chat.completions.create(**asked).usage
    assert last.usage and whole and last.usage.prompt_tokens == whole.prompt_tokens


def test_several_choices_are_counted_together(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="pocket", messages=CAPITAL, n=3, seed=1, max_tokens=4, **OFF
    )
    assert [c.index for c in reply.choices] == [0, 1, 2]
    assert reply.usage and 4 < reply.usage.completion_tokens <= 12


def test_the_modes_sampling_is_applied_by_the_engine(client: openai.OpenAI, owner: Owner) -> None:
    for mode, how in (("thinking", {}), ("non-thinking", OFF)):
        client.chat.completions.create(model="pocket", messages=CAPITAL, max_tokens=2, **how)
        (slot,) = get(f"{owner.url}/slots")
        preset = owner.spec.sampling[mode]  # type: ignore[index]
        for name in ("temperature", "top_p", "top_k", "min_p", "presence_penalty"):
            assert slot["params"][name] == pytest.approx(getattr(preset, name))
        assert slot["params"]["repeat_penalty"] == 1


# ------------------------------------------------------------------------ tools, formats, probes


def test_a_tool_is_called_whole_and_streamed_and_its_result_read(client: openai.OpenAI) -> None:
    turns: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    asked: dict[str, Any] = {"model": "pocket", "max_tokens": 200, "temperature": 0, **OFF}
    asked |= {"tools": [WEATHER], "tool_choice": "required"}
    reply = client.chat.completions.create(**asked, messages=turns).choices[0]
    assert reply.finish_reason == "tool_calls"
    (call,) = reply.message.tool_calls
    assert call.id and call.function.name == "get_weather"
    assert isinstance(json.loads(call.function.arguments)["city"], str)
    arguments = name = ""
    for chunk in client.chat.completions.create(**asked, messages=turns, stream=True):
        for part in chunk.choices[0].delta.tool_calls or []:
            name += part.function.name or ""
            arguments += part.function.arguments or ""
    assert (name, json.loads(arguments)) == ("get_weather", json.loads(call.function.arguments))
    turns += [reply.message, {"role": "tool", "tool_call_id": call.id, "content": "17 °C"}]
    asked.pop("tool_choice")
    assert client.chat.completions.create(**asked, messages=turns).choices


def test_no_tool_is_called_when_none_is_allowed(client: openai.OpenAI) -> None:
    turns: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    reply = client.chat.completions.create(
        model="pocket", messages=turns, tools=[WEATHER], tool_choice="none", max_tokens=60, **OFF
    )
    assert not reply.choices[0].message.tool_calls


@pytest.mark.parametrize("how", [{}, OFF], ids=["thinking", "not thinking"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_json_schema_is_enforced(
    client: openai.OpenAI, how: dict[str, Any], stream: bool
) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "sure": {"type": "boolean"}},
        "required": ["city", "sure"],
        "additionalProperties": False,
    }
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    asked: dict[str, Any] = {"model": "pocket", "messages": CAPITAL, "temperature": 0, **how}
    asked |= {"response_format": form, "max_tokens": 600}
    made = client.chat.completions.create(**asked, stream=stream)
    content = together(made)[1] if stream else made.choices[0].message.content
    assert set(json.loads(content)) == {"city", "sure"}
    if not how and not stream:
        assert getattr(made.choices[0].message, "reasoning_content", None)


def test_log_probabilities(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="pocket",
        messages=CAPITAL,
        max_tokens=4,
        temperature=0,
        logprobs=True,
        top_logprobs=3,
        **OFF,
    )
    entries = reply.choices[0].logprobs.content
    assert entries and all(len(e.top_logprobs) == 3 for e in entries)
    assert entries[0].logprob == pytest.approx(max(t.logprob for t in entries[0].top_logprobs))


def test_plain_completions_and_embeddings(client: openai.OpenAI) -> None:
    text = client.completions.create(model="pocket", prompt="The capital of", max_tokens=4)
    assert text.object == "text_completion" and text.choices[0].text
    pieces = list(client.completions.create(model="pocket", prompt="A", max_tokens=3, stream=True))
    assert pieces[-1].choices[0].finish_reason
    with pytest.raises(openai.InternalServerError, match="makes no embeddings"):
        client.embeddings.create(model="pocket", input="a")


# -------------------------------------------------------------------------------- bad requests


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_longer_than_the_context_is_refused(client: openai.OpenAI, stream: bool) -> None:
    long: Any = [{"role": "user", "content": "word " * 4 * CONTEXT}]
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model="pocket", messages=long, stream=stream)
    assert e.value.code == "context_length_exceeded"
    assert "context" in e.value.message
    assert e.value.response.headers["x-qwharf-upstream"] == "error"


HOSTILE_SCHEMAS: list[dict[str, Any]] = [
    {"type": "nothing"},
    {"$ref": "#/definitions/none"},
    {"$ref": "http://127.0.0.1:1/x"},
    {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    {"type": "string", "minLength": 10**9},
    {"type": "string", "pattern": "^(a{1,5000}){1,5000}$"},
    {"type": "string", "pattern": "^((((("},
    {"type": "array", "minItems": 10**12},
    {"enum": []},
    {"type": ["string", "x"]},
    {"properties": {"a": True}},
    {"type": "object", "required": [1]},
    {"allOf": [{"oneOf": []}]},
]


@pytest.mark.parametrize("schema", HOSTILE_SCHEMAS, ids=lambda s: json.dumps(s)[:40])
def test_hostile_schemas_do_not_kill_the_engine(
    client: openai.OpenAI, owner: Owner, schema: dict[str, Any]
) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    generation = owner.generation
    try:
        client.chat.completions.create(
            model="pocket", messages=CAPITAL, response_format=form, max_tokens=4, **OFF
        )
    except openai.BadRequestError as e:
        assert e.code == "refused_by_engine"
    assert client.chat.completions.create(model="pocket", messages=CAPITAL, max_tokens=1)
    assert owner.generation == generation


# ------------------------------------------------------------------------- clients and engines go


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_the_engine(
    client: openai.OpenAI, owner: Owner, stream: bool
) -> None:
    impatient = client.with_options(timeout=1.0)
    if stream:
        with impatient.chat.completions.create(**ENDLESS, stream=True) as reply:
            next(iter(reply))
            assert owner.is_busy()
    else:
        with pytest.raises(openai.APITimeoutError):
            impatient.chat.completions.create(**ENDLESS)
    start = time.monotonic()
    until(lambda: not owner.is_busy())
    (slot,) = get(f"{owner.url}/slots")
    decoded = slot["next_token"][0]["n_decoded"]
    assert decoded < 15_000, f"it ran to its end, in {time.monotonic() - start:.1f} s"


def test_a_killed_engine_ends_a_stream_with_an_error_and_the_next_request_works(
    client: openai.OpenAI, owner: Owner
) -> None:
    generation = owner.generation
    reply = iter(client.chat.completions.create(**ENDLESS, stream=True))
    next(reply)
    assert owner.child
    owner.child.kill()
    with pytest.raises(openai.APIError, match="broke off") as e:
        list(reply)
    assert e.value.code == "engine_lost"
    assert client.chat.completions.create(model="pocket", messages=CAPITAL, max_tokens=3)
    assert owner.generation == generation + 1


def test_an_engine_killed_between_requests_is_not_noticed(
    client: openai.OpenAI, owner: Owner
) -> None:
    assert owner.child
    owner.child.kill()
    owner.child.wait()
    assert client.chat.completions.create(model="pocket", messages=CAPITAL, max_tokens=3)
