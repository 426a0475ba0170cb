"""The one internal request: what a client asked for, checked, with every default decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from qwharf.gateway.fields import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What chat and plain completion have in common."""

    asked: frozenset[str] = frozenset()
    """Which of these the client set itself; the rest are Qwen3's defaults, or ours."""
    adapter: str | None = None
    """The LoRA adapter that was asked for by its name; ``None``: the model as it is."""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repeat_penalty: float = 1.0
    """1.0 is off."""
    max_tokens: int | None = None
    """``None``: up to the end of the context."""
    stop: Sequence[str] = ()
    seed: int | None = None
    n: int = 1
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Token id to bias."""
    ignore_eos: bool = False
    """Go on after the end token: for measuring speed."""
    cache_prompt: bool = True
    """Use what the engine still has of an earlier prompt."""
    stream: bool = False
    include_usage: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A conversation to be continued."""

    messages: Sequence[JsonObject]
    """Contents are strings; call arguments the text of a JSON object."""
    generation: Generation
    thinking: bool | None = None
    """``None``: the model has no switch."""
    template_variables: Mapping[str, Any] = field(default_factory=dict)
    thinking_budget_tokens: int | None = None
    tools: Sequence[JsonObject] = ()
    tool_choice: Literal["auto", "required"] = "auto"
    parallel_tool_calls: bool = True
    json_schema: JsonObject | None = None
    """What the content must satisfy; an empty schema is any object."""
    top_logprobs: int | None = None
    """``None``: no log probabilities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """Texts to be continued, without a chat template."""

    prompts: Sequence[str | Sequence[int]]
    generation: Generation
    top_logprobs: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest:
    """Texts to be turned into vectors."""

    input: str | Sequence[Any]
    encoding_format: Literal["float", "base64"] = "float"
