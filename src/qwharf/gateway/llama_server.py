"""The internal request as llama.cpp's server takes it: one body for each choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qwharf.gateway.fields import JsonObject
from qwharf.gateway.requests import ChatRequest, CompletionRequest, EmbeddingRequest, Generation

CHAT_PATH = "/v1/chat/completions"
COMPLETION_PATH = "/v1/completions"
EMBEDDING_PATH = "/v1/embeddings"
SEEDS = 2**32 - 1
"""The engine takes -1, as 32 bits, for "random": no client's seed shall become that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """What the engine is sent: a body for each choice, and what becomes of the replies."""

    path: str
    bodies: Sequence[JsonObject]
    per_prompt: int = 1
    """Choices of one prompt, which stand side by side."""
    stream: bool = False
    """Whether the client wants a stream."""
    include_usage: bool = False


def chat(request: ChatRequest, model: str) -> Wire:
    """For ``CHAT_PATH``."""
    g = request.generation
    # The engine cannot stream the two together.
    body = _common(g, model, streams=not (request.tools and request.top_logprobs is not None))
    body["messages"] = list(request.messages)
    variables = dict(request.template_variables)
    if request.thinking is not None:
        variables["enable_thinking"] = request.thinking
    if variables:
        body["chat_template_kwargs"] = variables
    if request.thinking_budget_tokens is not None:
        body["thinking_budget_tokens"] = request.thinking_budget_tokens
    if request.tools:
        body["tools"] = list(request.tools)
        body["tool_choice"] = request.tool_choice
        body["parallel_tool_calls"] = request.parallel_tool_calls
    if request.json_schema is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"schema": request.json_schema},
        }
    if request.top_logprobs is not None:
        body["logprobs"] = True
        # With 0 the engine gives no probabilities at all; OpenAI means: of the chosen token only.
        body["top_logprobs"] = max(1, request.top_logprobs)
    return _wire(CHAT_PATH, _choices(body, g), g)


def completion(request: CompletionRequest, model: str) -> Wire:
    """For ``COMPLETION_PATH``."""
    g = request.generation
    body = _common(g, model, streams=True)
    if request.top_logprobs is not None:
        body["n_probs"] = max(1, request.top_logprobs)
    bodies = [b for p in request.prompts for b in _choices(body | {"prompt": p}, g)]
    return _wire(COMPLETION_PATH, bodies, g)


def embedding(request: EmbeddingRequest, model: str) -> Wire:
    """For ``EMBEDDING_PATH``."""
    body = {
        "model": model,
        "input": request.input,
        "encoding_format": request.encoding_format,
    }
    return Wire(path=EMBEDDING_PATH, bodies=[body])


def _wire(path: str, bodies: Sequence[JsonObject], g: Generation) -> Wire:
    return Wire(
        path=path,
        bodies=bodies,
        per_prompt=g.n,
        stream=g.stream,
        include_usage=g.include_usage,
    )


def _common(g: Generation, model: str, *, streams: bool) -> JsonObject:
    streams = streams or g.stream
    usage = g.include_usage or not g.stream
    body: dict[str, Any] = {
        "model": model,
        "temperature": g.temperature,
        "top_p": g.top_p,
        "top_k": g.top_k,
        "min_p": g.min_p,
        "presence_penalty": g.presence_penalty,
        "frequency_penalty": g.frequency_penalty,
        "repeat_penalty": g.repeat_penalty,
        "max_tokens": g.max_tokens,
        "seed": None if g.seed is None else g.seed % SEEDS,
        "stop": list(g.stop) or None,
        "logit_bias": [[token, bias] for token, bias in g.logit_bias.items()] or None,
        "ignore_eos": g.ignore_eos or None,
        "cache_prompt": None if g.cache_prompt else False,
        "stream": streams or None,
        "stream_options": {"include_usage": True} if streams and usage else None,
    }
    return {name: value for name, value in body.items() if value is not None}


def _choices(body: JsonObject, g: Generation) -> list[JsonObject]:
    """One body for each choice; with a seed, each has its own."""
    if g.seed is None:
        return [body] * g.n
    return [body | {"seed": (g.seed + i) % SEEDS} for i in range(g.n)]
