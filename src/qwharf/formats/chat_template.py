"""Render a checkpoint's own chat template as transformers does, but in a sandbox of our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwharf.errors import InvalidFile

if TYPE_CHECKING:
    from jinja2 import Template

MAX_TEMPLATE_CHARACTERS = 100_000
"""Qwen3's own have 4,000."""


def load_chat_template(path: Path) -> str:
    """The template of a checkpoint folder or a ``.gguf`` file.

    Raises:
        InvalidFile: there is none, or a file is damaged.
        StorageError: a file may not be read.
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
        InvalidFile: the template is malformed, fails, refuses the conversation, or does more work
            than a budget of a million steps allows.
    """
    from qwharf.formats.budget import budget

    try:
        made = _compiled(template)
        with budget():
            return made.render(
                variables,
                messages=list(messages),
                tools=list(tools) if tools else None,
                add_generation_prompt=add_generation_prompt,
            )
    except InvalidFile:
        raise
    except Exception as e:  # the template is a program from outside: it may fail in any way
        raise InvalidFile(
            "chat template",
            found=f"{type(e).__name__}: {str(e)[:300]}",
            expected="a template that renders this conversation",
            hint="get the tokenizer files again, or use the template of the original model",
        ) from e


@lru_cache(maxsize=16)
def _compiled(template: str) -> Template:
    """The template, parsed.

    Raises:
        InvalidFile: far too long to be one.
        jinja2.TemplateSyntaxError: malformed.
    """
    from qwharf.formats.sandbox import Sandbox

    if len(template) > MAX_TEMPLATE_CHARACTERS:
        raise InvalidFile(
            "chat template",
            found=f"{len(template):,} characters",
            expected=f"at most {MAX_TEMPLATE_CHARACTERS:,}",
        )
    return Sandbox().from_string(template)
