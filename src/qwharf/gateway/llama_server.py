"""The internal request as llama.cpp's server takes it: one body for each choice."""

from __future__ import annotations

from typing import Any

from qwharf.gateway.fields import JsonObject
from qwharf.gateway.requests import ChatRequest, CompletionRequest, EmbeddingRequest, Generation

CHAT_PATH = "/v1/chat/completions"
COMPLETION_PATH = "/v1/completions"
EMBEDDING_PATH = "/v1/embeddings"
SEEDS = 2**32 - 1
"""The engine takes -1, as 32 bits, for "random": no client's seed shall become that."""


def chat(request: ChatRequest, model: str) -> list[JsonObject]:
    """The bodies for ``CHAT_PATH``."""
    body = _common(request.generation, model)
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
    return _choices(body, request.generation)


def completion(request: CompletionRequest, model: str) -> list[JsonObject]:
    """The bodies for ``COMPLETION_PATH``."""
    body = _common(request.generation, model)
    body["prompt"] = request.prompt
    if request.top_logprobs is not None:
        body["n_probs"] = max(1, request.top_logprobs)
    return _choices(body, request.generation)


def embedding(request: EmbeddingRequest, model: str) -> list[JsonObject]:
    """The body for ``EMBEDDING_PATH``."""
    return [{"model": model, "input": request.input, "encoding_format": request.encoding_format}]


def _common(g: Generation, model: str) -> JsonObject:
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
        "stream": g.stream or None,
        "stream_options": {"include_usage": True} if g.stream and g.include_usage else None,
    }
    return {name: value for name, value in body.items() if value is not None}


def _choices(body: JsonObject, g: Generation) -> list[JsonObject]:
    """One body for each choice; with a seed, each has its own."""
    if g.seed is None:
        return [body] * g.n
    return [body | {"seed": (g.seed + i) % SEEDS} for i in range(g.n)]
