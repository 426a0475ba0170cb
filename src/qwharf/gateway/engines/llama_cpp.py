"""llama.cpp's server: the one that the gateway's shapes were taken from, so its streams pass as
they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qwharf.gateway.engines.reply import Reply
from qwharf.gateway.engines.streams import AsItIs, Changed
from qwharf.gateway.engines.wire import Stream, Wire
from qwharf.gateway.fields import JsonObject
from qwharf.gateway.requests import ChatRequest, CompletionRequest, EmbeddingRequest, Generation
from qwharf.types import DeploymentSpec

CHAT_PATH = "/v1/chat/completions"
COMPLETION_PATH = "/v1/completions"
EMBEDDING_PATH = "/v1/embeddings"
SEEDS = 2**32 - 1
"""The engine takes -1, as 32 bits, for "random": no client's seed shall become that."""


class LlamaCpp:
    """The engine ``llama.cpp``."""

    def chat(self, request: ChatRequest, spec: DeploymentSpec) -> Wire:
        """A conversation."""
        g = request.generation
        # The engine cannot stream the two together.
        streams = not (request.tools and request.top_logprobs is not None)
        body = _common(g, spec, streams=streams)
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
            # With 0 the engine gives no probabilities at all; OpenAI means: of the chosen token.
            body["top_logprobs"] = max(1, request.top_logprobs)
        return _wire(CHAT_PATH, _choices(body, g), g, spec)

    def completion(self, request: CompletionRequest, spec: DeploymentSpec) -> Wire:
        """Plain texts."""
        g = request.generation
        body = _common(g, spec, streams=True)
        if request.top_logprobs is not None:
            body["n_probs"] = max(1, request.top_logprobs)
        bodies = [b for p in request.prompts for b in _choices(body | {"prompt": p}, g)]
        return _wire(COMPLETION_PATH, bodies, g, spec)

    def embedding(self, request: EmbeddingRequest, spec: DeploymentSpec) -> Wire:
        """Texts to embed, where it was started for that."""
        body = {
            "input": request.input,
            "encoding_format": request.encoding_format,
        }
        return Wire(path=EMBEDDING_PATH, bodies=[body])


def _wire(path: str, bodies: Sequence[JsonObject], g: Generation, spec: DeploymentSpec) -> Wire:
    def renamed() -> Stream:
        """Somebody else's server calls its model by another name; an adapter has none there."""
        return Changed(Reply(g.adapter or spec.name).change)

    read = AsItIs if spec.endpoint is None and g.adapter is None else renamed
    return Wire(
        path=path,
        bodies=bodies,
        read=read if "stream" in bodies[0] else None,
        per_prompt=g.n,
        stream=g.stream,
        include_usage=g.include_usage,
    )


def _common(g: Generation, spec: DeploymentSpec, *, streams: bool) -> JsonObject:
    streams = streams or g.stream
    usage = g.include_usage or not g.stream
    body: dict[str, Any] = {
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
        # Always said where there are any: a slot would keep what it computed with another one.
        "lora": [{"id": i, "scale": float(n == g.adapter)} for i, n in enumerate(spec.adapters)]
        or None,
        "stream": streams or None,
        "stream_options": {"include_usage": True} if streams and usage else None,
    }
    return {name: value for name, value in body.items() if value is not None}


def _choices(body: JsonObject, g: Generation) -> list[JsonObject]:
    """One body for each choice; with a seed, each has its own."""
    if g.seed is None:
        return [body] * g.n
    return [body | {"seed": (g.seed + i) % SEEDS} for i in range(g.n)]
