"""mlx-lm's server (fields as its 0.32.2 has them).

It ignores formats, ``tool_choice`` and what else it does not know, in silence; gives log
probabilities without the chosen token; stops after 512 tokens unless told; looks for penalties at
the last 20 tokens only; and finds calls only in models whose template it knows by its wording.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from qwharf.gateway.engines.openai_route import OpenAiRoute
from qwharf.gateway.engines.text import CALL
from qwharf.gateway.fields import JsonObject
from qwharf.gateway.requests import ChatRequest, Generation
from qwharf.types import DeploymentSpec

_IGNORED = "its server would ignore it"


class Mlx(OpenAiRoute):
    """The engine ``mlx``."""

    title = "mlx-lm"
    tags = (CALL,)
    cannot: ClassVar[Mapping[str, str]] = {
        "response_format": "its server does not enforce formats, and would ignore this one",
        "tool_choice": "its server cannot make the model call a tool, and would ignore this",
        "logprobs": "its server gives probabilities without saying which token was chosen",
        "thinking_budget": _IGNORED,
        "ignore_eos": _IGNORED,
        "cache_prompt": _IGNORED,
        "messages": "its server answers a last message of the assistant instead of continuing it",
    }

    def sampling(self, g: Generation, spec: DeploymentSpec) -> JsonObject:
        """Penalties look at all that was said, as elsewhere."""
        made = super().sampling(g, spec)
        for kind in ("presence", "frequency"):
            if made.get(f"{kind}_penalty"):
                made[f"{kind}_context_size"] = spec.context_tokens
        if g.repeat_penalty != 1.0:
            made["repetition_context_size"] = spec.context_tokens
        return made

    def limit(self, g: Generation, spec: DeploymentSpec) -> JsonObject:
        """Always one: its own is 512."""
        wanted = spec.context_tokens if g.max_tokens is None else g.max_tokens
        return {"max_tokens": min(wanted, spec.context_tokens)}

    def tools(self, request: ChatRequest) -> JsonObject:
        """Without ``tool_choice``."""
        return {"tools": list(request.tools)} if request.tools else {}
