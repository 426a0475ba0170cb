"""SGLang's server (fields as its 0.5.23 has them).

It answers with ``reasoning_content`` already, and drops fields that it does not know in silence:
so vLLM's names for its own must not be sent.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import ClassVar

from qwharf.gateway.engines.openai_route import OpenAiRoute
from qwharf.gateway.fields import JsonObject
from qwharf.gateway.requests import ChatRequest, Generation
from qwharf.types import DeploymentSpec

LEAST_LIMIT = 16
"""What it would take by itself."""


class Sglang(OpenAiRoute):
    """The engine ``sglang``."""

    title = "SGLang"
    cannot: ClassVar[Mapping[str, str]] = {
        "thinking_budget": "it has one only for servers started with a filter of tokens"
    }

    def sampling(self, g: Generation, spec: DeploymentSpec) -> JsonObject:
        """``top_k`` -1 is off here; a salt keeps a prompt from being found in the cache."""
        made = super().sampling(g, spec)
        if made.get("top_k") == 0:
            made["top_k"] = -1
        return made | ({} if g.cache_prompt else {"cache_salt": uuid.uuid4().hex})

    def rest(self, prompt: str | Sequence[int], spec: DeploymentSpec) -> int | None:
        """It takes no null here, and refuses more than is left of the context: no token is shorter
        than a byte.
        """
        longest = len(prompt.encode("utf-8", "replace")) if isinstance(prompt, str) else len(prompt)
        return max(LEAST_LIMIT, spec.context_tokens - longest - 1)

    def adapter(self, g: Generation) -> JsonObject:
        """By a field of its own: the model's name is not looked at."""
        return {} if g.adapter is None else {"lora_path": g.adapter}

    def tools(self, request: ChatRequest) -> JsonObject:
        """It knows ``parallel_tool_calls``."""
        made = super().tools(request)
        return made | ({"parallel_tool_calls": request.parallel_tool_calls} if made else {})

    def prefill(self) -> JsonObject:
        """Under this name alone."""
        return {"continue_final_message": True}
