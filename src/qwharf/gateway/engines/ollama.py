"""Ollama, by its own routes (seen with 0.33).

Its OpenAI route overrides the sampling of whoever asks, ignores switches and ``tool_choice``, and
puts the chat template around plain prompts; its own routes cut what is too long in silence, unless
told not to. So requests go to those, with every option said:

- ``/api/generate`` with ``raw`` and the prompt rendered here, by the template in the GGUF: exact to
  the token, where ``/api/chat`` writes tools in another order and drops the thinking of tool loops.
  Thoughts and calls are then found in the text here.
- ``/api/chat`` where there is no template to render: the model of an adopted Ollama; and for
  formats, which it enforces after the thinking, and a raw prompt from the first word.

Options that a model is loaded with must be the same in every request: others would reload it.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar

from qwharf.errors import InvalidFile
from qwharf.formats.chat_template import load_chat_template, render
from qwharf.gateway.engine_errors import cannot, nonsense, refusal_of
from qwharf.gateway.engines.openai_route import OpenAiRoute, asked_of, asked_of_chat, seeded
from qwharf.gateway.engines.reply import Reply
from qwharf.gateway.engines.streams import BROKEN_STATUS, event
from qwharf.gateway.engines.text import CALL, CONTENT, OPENING, REASONING
from qwharf.gateway.engines.wire import Wire
from qwharf.gateway.errors import ApiError
from qwharf.gateway.events import DONE
from qwharf.gateway.fields import JsonObject
from qwharf.gateway.requests import ChatRequest, CompletionRequest, Generation
from qwharf.platforms.ollama_store import load_options
from qwharf.types import DeploymentSpec

CHAT, RAW = "/api/chat", "/api/generate"
NDJSON = "application/x-ndjson"
NO_THOUGHT = "<think>\n\n</think>\n\n"
"""As the template writes it where thinking is off."""


class Ollama(OpenAiRoute):
    """The engine ``ollama``."""

    title: ClassVar[str] = "Ollama"
    cannot: ClassVar[Mapping[str, str]] = {
        "thinking_budget": "it has none",
        "logit_bias": "it has none",
        "ignore_eos": "it has no such option",
        "cache_prompt": "it has no such option",
    }

    def chat(self, request: ChatRequest, spec: DeploymentSpec) -> Wire:
        """A conversation."""
        self.refuse(asked_of_chat(request))
        template = None if spec.endpoint else _template(spec.artifact_path)
        if template is None or request.json_schema is not None:
            return self._native(request, spec)
        prompt, begins = _prompt(template, request)
        body = self._body(request.generation, spec, request.top_logprobs)
        body |= {"raw": True, "prompt": prompt}
        tags = {REASONING, CALL} if request.tools else {REASONING}
        one_call = not request.parallel_tool_calls
        reply = partial(Reply, spec.name, tags=tags, begins=begins, one_call=one_call)
        return self._wire(RAW, [body], request.generation, reply, chat=True)

    def _native(self, request: ChatRequest, spec: DeploymentSpec) -> Wire:
        if request.tools and request.tool_choice == "required":
            raise cannot("tool_choice", self.title, "it would ignore it")
        if request.template_variables:
            raise cannot("chat_template_kwargs", self.title, "it would ignore them")
        body = self._body(request.generation, spec, request.top_logprobs)
        body["messages"] = _messages(request.messages)
        if request.thinking is not None:
            body["think"] = request.thinking
        if request.tools:
            body["tools"] = list(request.tools)
        if request.json_schema is not None:
            body["format"] = request.json_schema or "json"
        reply = partial(Reply, spec.name, one_call=not request.parallel_tool_calls)
        return self._wire(CHAT, [body], request.generation, reply, chat=True)

    def completion(self, request: CompletionRequest, spec: DeploymentSpec) -> Wire:
        """Plain texts."""
        g = request.generation
        self.refuse(asked_of(g))
        if not all(isinstance(p, str) for p in request.prompts):
            raise cannot("prompt", self.title, "it takes text, not tokens")
        body = self._body(g, spec, request.top_logprobs) | {"raw": True}
        bodies = [body | {"prompt": p} for p in request.prompts]
        return self._wire(RAW, bodies, g, partial(Reply, spec.name), chat=False)

    def _body(self, g: Generation, spec: DeploymentSpec, top_logprobs: int | None) -> JsonObject:
        options: dict[str, Any] = {
            "temperature": g.temperature,
            "top_p": g.top_p,
            "top_k": g.top_k,
            "min_p": g.min_p,
            "presence_penalty": g.presence_penalty,
            "frequency_penalty": g.frequency_penalty,
            "repeat_penalty": g.repeat_penalty,
            "num_predict": -1 if g.max_tokens is None else g.max_tokens,
            "stop": list(g.stop) or None,
            "seed": g.seed,
        }
        said = {name: value for name, value in options.items() if value is not None}
        body: JsonObject = {"options": said, "truncate": False, "shift": False, "stream": True}
        if spec.endpoint is None:  # how somebody else's model is loaded is not for us to say
            said |= load_options(spec)
            body["keep_alive"] = -1
        if top_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": top_logprobs}
        return body

    def _wire(
        self, path: str, bodies: list[JsonObject], g: Generation, reply: Any, *, chat: bool
    ) -> Wire:
        usage = g.include_usage or not g.stream

        def choices(body: JsonObject) -> Iterable[JsonObject]:
            for seed in seeded(g):
                yield body if seed is None else body | {"options": body["options"] | {"seed": seed}}

        return Wire(
            path=path,
            bodies=[choice for b in bodies for choice in choices(b)],
            read=lambda: Lines(reply(), chat=chat, usage=usage),
            per_prompt=g.n,
            stream=g.stream,
            include_usage=g.include_usage,
        )


# ------------------------------------------------------------------------------------- prompts


@lru_cache(maxsize=32)
def _template(path: Path) -> str | None:
    """The chat template in the weights; ``None``: there is none, and Ollama's own must do."""
    try:
        return load_chat_template(path)
    except InvalidFile:
        return None


def _prompt(template: str, request: ChatRequest) -> tuple[str, str]:
    """The prompt, and what the reply begins with."""
    messages = [_parsed(m) for m in request.messages]
    variables = dict(request.template_variables)
    if request.thinking is not None:
        variables["enable_thinking"] = request.thinking
    begun = messages.pop()["content"] if messages[-1]["role"] == "assistant" else ""
    prompt = render(template, messages, list(request.tools) or None, **variables)
    if request.tools and request.tool_choice == "required":
        # The only way to make it call: to begin the call for it. So it cannot think before.
        if request.thinking is True:
            prompt += NO_THOUGHT
        return f"{prompt}{OPENING[CALL]}\n", CALL
    return prompt + begun, REASONING if prompt.rstrip().endswith(OPENING[REASONING]) else CONTENT


def _parsed(message: Mapping[str, Any]) -> JsonObject:
    """A message as templates, and Ollama, want it: the arguments of calls as objects."""
    made = dict(message)
    if made.get("tool_calls"):
        made["tool_calls"] = [_parsed_call(c) for c in made["tool_calls"]]
    return made


def _parsed_call(call: Mapping[str, Any]) -> JsonObject:
    function = call["function"]
    return {**call, "function": {**function, "arguments": json.loads(function["arguments"])}}


def _messages(messages: Iterable[Mapping[str, Any]]) -> list[JsonObject]:
    """The conversation for ``/api/chat``: results name their tool, thoughts are ``thinking``."""
    names: dict[str, str] = {}
    made = []
    for message in map(_parsed, messages):
        for call in message.get("tool_calls") or ():
            names[call.get("id", "")] = call["function"]["name"]
        if "reasoning_content" in message:
            message["thinking"] = message.pop("reasoning_content")
        if message["role"] == "tool":
            message["tool_name"] = names.get(message.get("tool_call_id", ""), "")
        made.append(message)
    return made


# ------------------------------------------------------------------------------------- replies


class Lines:
    """Reads Ollama's lines of JSON as OpenAI's events.

    Every reply ends with a line that says ``done``, or with one that tells an error; one that ends
    otherwise is broken.
    """

    content_type = NDJSON

    def __init__(self, reply: Reply, *, chat: bool, usage: bool) -> None:
        self._reply = reply
        self._chat = chat
        self._usage = usage
        self._pending = bytearray()
        kind = "chatcmpl" if chat else "cmpl"
        self._frame: JsonObject = {
            "id": f"{kind}-{uuid.uuid4().hex}",
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": int(time.time()),
        }
        self.complete = False
        self.error: ApiError | None = None

    @property
    def pending_bytes(self) -> int:
        """Bytes of the line that is not yet whole."""
        return len(self._pending)

    def feed(self, piece: bytes) -> bytes:
        """The events of the lines that are whole with ``piece``."""
        if b"\n" not in piece:
            self._pending += piece
            return b""
        *lines, rest = (bytes(self._pending) + piece).split(b"\n")
        self._pending = bytearray(rest)
        return b"".join(made for line in lines if line.strip() for made in self._line(line))

    def _line(self, line: bytes) -> Iterable[bytes]:
        if self.complete or self.error:
            return
        try:
            found = json.loads(line)
            if found.get("error"):
                self.error = refusal_of(BROKEN_STATUS, found)
                return
            changed = self._reply.change(self._frame | {"choices": [self._choice(found)]})
            if changed is not None:
                yield event(changed)
            if found.get("done"):
                yield from self._end(found)
        except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError) as e:
            raise nonsense("a line that makes no sense") from e

    def _choice(self, found: JsonObject) -> JsonObject:
        finish = (found.get("done_reason") or "stop") if found.get("done") else None
        made: JsonObject = {"index": 0, "finish_reason": finish}
        if found.get("logprobs"):
            made["logprobs"] = {"content": found["logprobs"]}
        message = found.get("message") or {}
        text = found.get("response", message.get("content")) or ""
        if not self._chat:
            return made | {"text": text}
        delta: JsonObject = {"content": text, "thinking": message.get("thinking")}
        if message.get("tool_calls"):
            delta["tool_calls"] = [_call(c) for c in message["tool_calls"]]
        return made | {"delta": delta}

    def _end(self, found: JsonObject) -> Iterable[bytes]:
        self.complete = True
        if self._usage:
            prompt, made = found.get("prompt_eval_count", 0), found.get("eval_count", 0)
            usage = {
                "prompt_tokens": prompt,
                "completion_tokens": made,
                "total_tokens": prompt + made,
            }
            changed = self._reply.change(self._frame | {"choices": [], "usage": usage})
            if changed is not None:
                yield event(changed)
        yield DONE


def _call(call: JsonObject) -> JsonObject:
    """Ollama's call, whose arguments are an object, in the form of a delta."""
    function = call["function"]
    arguments = json.dumps(function.get("arguments") or {}, ensure_ascii=False)
    return {
        "index": function.get("index", 0),
        "id": call.get("id") or uuid.uuid4().hex,
        "function": {"name": function["name"], "arguments": arguments},
    }
