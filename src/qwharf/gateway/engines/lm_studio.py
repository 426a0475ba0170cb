"""LM Studio's OpenAI route (read in its documentation and issues, never seen running).

Thinking is switched by ``reasoning_effort`` alone: ``chat_template_kwargs`` has no effect. Where
thoughts stand depends on a setting of its user: in ``reasoning_content``, in ``reasoning``, or
between tags in the content. Its own sampling has a repeat penalty of 1.1 and a min_p of 0.05, so
both are always said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from qwharf.gateway.engines.openai_route import OpenAiRoute
from qwharf.gateway.engines.text import CALL, REASONING
from qwharf.gateway.fields import JsonObject
from qwharf.gateway.requests import ChatRequest, Generation
from qwharf.types import DeploymentSpec

_UNKNOWN = "it has no such field, and would ignore it"


class LmStudio(OpenAiRoute):
    """The engine ``lmstudio``."""

    title = "LM Studio"
    tags = (REASONING, CALL)
    cannot: ClassVar[Mapping[str, str]] = {
        "thinking_budget": _UNKNOWN,
        "chat_template_kwargs": "its route ignores them",
        "logprobs": "its route for chat is not known to give any",
        "ignore_eos": _UNKNOWN,
        "cache_prompt": _UNKNOWN,
        "messages": "it is not known to continue a last message of the assistant",
    }

    def sampling(self, g: Generation, spec: DeploymentSpec) -> JsonObject:
        """Under its names."""
        made = super().sampling(g, spec)
        made.pop("repetition_penalty", None)
        return made | {"repeat_penalty": g.repeat_penalty, "min_p": g.min_p or 0.0}

    def thinking(self, request: ChatRequest) -> JsonObject:
        """By effort: ``none`` is off, ``medium`` on."""
        if request.thinking is None:
            return {}
        return {"reasoning_effort": "medium" if request.thinking else "none"}

    def format(self, schema: JsonObject) -> JsonObject:
        """Only schemas are taken, so any object is one."""
        return super().format(schema or {"type": "object"})
