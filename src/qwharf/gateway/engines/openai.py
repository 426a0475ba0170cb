"""Any other server that speaks OpenAI's API: what OpenAI defines, and no more.

Qwen3's own sampling beyond OpenAI's fields cannot be set there, so it is left out where nobody
asked for it and refused where somebody did. A switch for thinking is sent in both ways in use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from qwharf.gateway.engines.openai_route import OpenAiRoute
from qwharf.gateway.engines.text import CALL, REASONING
from qwharf.gateway.fields import JsonObject
from qwharf.gateway.requests import ChatRequest, Generation
from qwharf.types import DeploymentSpec


class OpenAi(OpenAiRoute):
    """The engine ``openai``."""

    title = "a server of unknown kind"
    tags = (REASONING, CALL)
    cannot: ClassVar[Mapping[str, str]] = dict.fromkeys(
        (
            "top_k",
            "min_p",
            "repetition_penalty",
            "ignore_eos",
            "cache_prompt",
            "thinking_budget",
            "messages",
        ),
        "OpenAI's API has no such field, and an unknown server may ignore it",
    )

    def sampling(self, g: Generation, spec: DeploymentSpec) -> JsonObject:
        """OpenAI's fields only."""
        made = super().sampling(g, spec)
        return {k: v for k, v in made.items() if k not in self.cannot}

    def thinking(self, request: ChatRequest) -> JsonObject:
        """OpenAI's effort, and the template's variable, which most servers of Qwen3 know."""
        off = {"reasoning_effort": "none"} if request.thinking is False else {}
        return super().thinking(request) | off
