"""vLLM's server (fields as its 0.32 has them).

It refuses a prompt together with a limit of output that go beyond its context, so limits that
nobody asked for are not sent.
"""

from __future__ import annotations

import uuid

from qwharf.gateway.engines.openai_route import OpenAiRoute
from qwharf.gateway.fields import JsonObject
from qwharf.gateway.requests import ChatRequest, Generation
from qwharf.types import DeploymentSpec


class Vllm(OpenAiRoute):
    """The engine ``vllm``."""

    title = "vLLM"

    def sampling(self, g: Generation, spec: DeploymentSpec) -> JsonObject:
        """A salt of its own keeps a prompt from being found in the cache."""
        salt = {} if g.cache_prompt else {"cache_salt": uuid.uuid4().hex}
        return super().sampling(g, spec) | salt

    def thinking(self, request: ChatRequest) -> JsonObject:
        """Switch and budget."""
        budget = request.thinking_budget_tokens
        return super().thinking(request) | (
            {} if budget is None else {"thinking_token_budget": budget}
        )

    def tools(self, request: ChatRequest) -> JsonObject:
        """It knows ``parallel_tool_calls``."""
        made = super().tools(request)
        return made | ({"parallel_tool_calls": request.parallel_tool_calls} if made else {})
