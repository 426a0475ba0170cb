"""What is verified, and against whose template and tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from qwharf.types import Mode, Sampling, Thinking

Message = dict[str, Any]
"""One chat message in OpenAI's shape."""
Tool = dict[str, Any]
"""One tool in OpenAI's shape, ``{"type": "function", "function": {…}}``."""


ProbeKind = Literal["llama.cpp", "tokenize"]
"""llama.cpp: POST ``/apply-template`` and ``/tokenize``, GET ``/slots``, as its server has them;
tokenize: POST ``/tokenize`` of a conversation, as vLLM and SGLang have it."""


class Encoder(Protocol):
    """The one thing asked of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``; tags such as ``<|im_start|>`` become their own token."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The checkpoint's own chat template and tokenizer: what a deployment must obey."""

    chat_template: str
    tokenizer: Encoder

    @classmethod
    def load(cls, path: Path) -> Reference:
        """Read both from a checkpoint folder or from a ``.gguf`` file.

        Raises:
            InvalidFile: there is no chat template, or a file is damaged.
        """
        from qwharf.formats.chat_template import load_chat_template
        from qwharf.formats.tokenizer import load_tokenizer

        return cls(load_chat_template(path), load_tokenizer(path))

    def render(
        self, messages: Sequence[Message], tools: Sequence[Tool] | None = None, **variables: Any
    ) -> str:
        """The prompt text, generation prompt included, as every server should make it.

        Servers parse a call's ``arguments`` before rendering; so does this.
        """
        from qwharf.formats.chat_template import render

        parsed = [as_template_input(m) for m in messages]
        return render(self.chat_template, parsed, list(tools) if tools else None, **variables)

    def tokens(
        self, messages: Sequence[Message], tools: Sequence[Tool] | None = None, **variables: Any
    ) -> list[int]:
        """Token ids of :meth:`render`."""
        return self.tokenizer.encode(self.render(messages, tools, **variables))


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An OpenAI-compatible endpoint and what was promised of it."""

    base_url: str
    """Ends in ``/v1``."""
    served_name: str | None = None
    """The model to ask for; ``None``: the only one that is listed."""
    api_key: str | None = None
    model: str = ""
    """The model's own name, for the report."""
    thinking: Thinking = "hybrid"
    context_tokens: int | None = None
    """The context promised per request; ``None``: no promise known."""
    sampling: Mapping[Mode, Sampling] = field(default_factory=dict)
    """The sampling promised for requests that do not say."""
    reference: Reference | None = None
    probe_url: str | None = None
    """Base under which the engine's own routes answer, as ``probe`` says; ``None``: none do."""
    probe: ProbeKind = "llama.cpp"
    probe_headers: Mapping[str, str] = field(default_factory=dict)
    deadline_seconds: float = 120.0
    """Patience with one request; grows for endpoints that are seen to be slow, not stuck."""


def as_template_input(message: Message) -> Message:
    """``message`` as servers hand it to a chat template.

    Arguments of calls become objects, absent content becomes "", text parts one string.
    """
    made = dict(message)
    content = made.get("content")
    if content is None:
        made["content"] = ""
    elif isinstance(content, list):
        made["content"] = "".join(part.get("text", "") for part in content)
    if made.get("tool_calls"):
        made["tool_calls"] = [_parsed(call) for call in made["tool_calls"]]
    return made


def _parsed(call: dict[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    if isinstance(function.get("arguments"), str):
        function["arguments"] = json.loads(function["arguments"])
    return {**call, "function": function}
