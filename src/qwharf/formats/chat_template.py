"""Render a checkpoint's own chat template, as transformers does, in a sandbox.

The environment is that of transformers: ``trim_blocks`` and ``lstrip_blocks`` on, and a ``tojson``
that neither escapes for HTML, nor sorts keys, nor escapes non-ASCII, with ``", "`` and ``": "``
between items; jinja2's own filter does all three.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwharf.errors import InvalidFile

if TYPE_CHECKING:
    from jinja2 import Template

MAX_TEMPLATE_CHARACTERS = 1_000_000
MAX_RANGE = 100_000


def load_chat_template(path: Path) -> str:
    """The template of a checkpoint folder or a ``.gguf`` file.

    Raises:
        InvalidFile: there is none, or a file is damaged.
    """
    template: object
    if path.is_dir():
        from qwharf.formats.checkpoint import chat_template_of

        template = chat_template_of(path)
    else:
        from qwharf.formats.gguf import read_gguf

        template = read_gguf(path).metadata.get("tokenizer.chat_template")
    if not isinstance(template, str) or not template:
        raise InvalidFile(
            str(path),
            found="no chat template",
            expected="tokenizer_config.json, chat_template.jinja or tokenizer.chat_template",
            hint="fetch the tokenizer files of the checkpoint too",
        )
    return template


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    *,
    add_generation_prompt: bool = True,
    **variables: Any,
) -> str:
    """The prompt text for ``messages``.

    Args:
        template: Jinja text.
        messages: in OpenAI's shape; string contents, arguments as objects.
        tools: in OpenAI's shape, or none.
        add_generation_prompt: end with the opening of the assistant's turn.
        variables: others that the template knows, such as ``enable_thinking``.

    Raises:
        InvalidFile: the template is malformed, fails, or refuses the conversation.
    """
    from jinja2 import TemplateError

    try:
        return compiled(template).render(
            messages=list(messages),
            tools=list(tools) if tools else None,
            add_generation_prompt=add_generation_prompt,
            **variables,
        )
    except (
        TemplateError,
        TypeError,
        ValueError,
        ArithmeticError,
        LookupError,
        RecursionError,
    ) as e:
        raise InvalidFile(
            "chat template",
            found=f"{type(e).__name__}: {str(e)[:300]}",
            expected="a template that renders this conversation",
        ) from e


@lru_cache(maxsize=16)
def compiled(template: str) -> Template:
    """The template, parsed.

    Raises:
        InvalidFile: far too long to be one.
        jinja2.TemplateSyntaxError: malformed.
    """
    from jinja2 import TemplateError
    from jinja2.ext import LoopControlExtension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    if len(template) > MAX_TEMPLATE_CHARACTERS:
        raise InvalidFile(
            "chat template",
            found=f"{len(template):,} characters",
            expected=f"at most {MAX_TEMPLATE_CHARACTERS:,}",
        )

    def refuse(message: object) -> None:
        raise TemplateError(str(message))

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    return environment.from_string(template)


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON as transformers' templates write it."""
    return json.dumps(value, ensure_ascii=False, indent=indent)
