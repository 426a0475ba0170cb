"""Whether a reply thinks: every switch that clients know, in one place.

In order of precedence: ``chat_template_kwargs.enable_thinking`` (Qwen's own), ``enable_thinking``
(Qwen's cloud), ``reasoning_effort`` (OpenAI), ``reasoning`` (OpenRouter, Responses), and last
``/think`` and ``/no_think`` in the text, which the model itself obeys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qwharf.gateway.errors import ApiError, bad
from qwharf.gateway.fields import Fields
from qwharf.types import DeploymentSpec, Mode

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
RESERVED = frozenset({"messages", "tools", "add_generation_prompt", "bos_token", "eos_token"})
"""Variables that belong to the server."""
MAX_BUDGET_TOKENS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Switch:
    """What a request says of thinking."""

    wanted: bool | None
    """``None``: nothing."""
    by: str = ""
    """The field that said it."""
    explicit: bool = True
    """Whether the field is about this model's thinking, not a general wish for effort."""
    variables: Mapping[str, Any] = field(default_factory=dict)
    """The other template variables."""


def switch(fields: Fields) -> Switch:
    """Read the switches of a chat request; all of them are checked, the first one counts.

    Raises:
        ApiError: 400.
    """
    variables = fields.object("chat_template_kwargs") or {}
    inner = Fields(variables, "chat_template_kwargs")
    reasoning = Fields(fields.object("reasoning") or {}, "reasoning")
    # The template's test is for the boolean; the text "false" would leave thinking on.
    said: list[tuple[str, bool | None, bool]] = [
        ("chat_template_kwargs.enable_thinking", inner.boolean("enable_thinking"), True),
        ("enable_thinking", fields.boolean("enable_thinking"), True),
        ("reasoning_effort", _effort(fields.choice("reasoning_effort", EFFORTS)), False),
        ("reasoning.enabled", reasoning.boolean("enabled"), True),
        ("reasoning.effort", _effort(reasoning.choice("effort", EFFORTS)), False),
    ]
    for name in variables:
        if name in RESERVED:
            raise bad(
                f"chat_template_kwargs.{name}",
                f"`chat_template_kwargs.{name}` is set by the server, not by a request.",
            )
    others = {k: v for k, v in variables.items() if k != "enable_thinking"}
    for by, wanted, explicit in said:
        if wanted is not None:
            return Switch(wanted, by, explicit, others)
    return Switch(None, variables=others)


def _effort(effort: str | None) -> bool | None:
    return None if effort is None else effort != "none"


def resolve(switch: Switch, spec: DeploymentSpec) -> bool | None:
    """The value for the template, ``None`` where the model has no switch.

    Raises:
        ApiError: 400; the model cannot do what is asked for.
    """
    if spec.thinking == "hybrid":
        return switch.wanted is not False
    if spec.thinking == "thinking" and switch.wanted is False:
        raise _cannot(
            switch.by,
            f"`{spec.name}` ({spec.model}) always thinks: thinking cannot be switched off "
            f"(`{switch.by}`). Use a hybrid or an Instruct model, or leave the switch out.",
        )
    # A general wish for effort is sent by many clients to whatever model there is.
    if spec.thinking == "instruct" and switch.wanted and switch.explicit:
        raise _cannot(
            switch.by,
            f"`{spec.name}` ({spec.model}) never thinks: thinking cannot be switched on "
            f"(`{switch.by}`). Use a hybrid or a Thinking model, or leave the switch out.",
        )
    return None


def _cannot(param: str, message: str) -> ApiError:
    return bad(param, message, "thinking_not_switchable")


def mode_of(spec: DeploymentSpec, enabled: bool | None, soft: bool | None) -> Mode:
    """Which of the model's modes a reply will be in, as far as can be known before."""
    if spec.thinking == "thinking":
        return "thinking"
    if spec.thinking == "instruct" or enabled is False or soft is False:
        return "non-thinking"
    return "thinking"


def budget(fields: Fields) -> int | None:
    """The limit on thinking, under the names of llama.cpp and of Qwen's cloud.

    Raises:
        ApiError: 400.
    """
    names = ("thinking_budget", "thinking_budget_tokens", "reasoning_budget_tokens")
    values = [fields.integer(n, 0, MAX_BUDGET_TOKENS) for n in names]
    return next((v for v in values if v is not None), None)
