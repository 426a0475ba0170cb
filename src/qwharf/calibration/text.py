"""The text that a model reads while it is calibrated, as sequences of tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwharf import texts
from qwharf.errors import InvalidFile, UsageError
from qwharf.formats.chat_template import load_chat_template, render
from qwharf.formats.opening import read_bounded
from qwharf.formats.tokenizer import load_tokenizer

DEFAULT = "default"
MAX_TEXT_BYTES = 64 << 20
SEQUENCE_TOKENS = 512
"""Read at a time, each from position 0; a rest shorter than that is left out."""
LEAST_SEQUENCES = 4
MOST_SEQUENCES = 128
"""65,536 tokens: what more would add is small, and its memory is not."""

Document = str | Sequence[Mapping[str, Any]]
"""Plain text, or the messages of a chat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """What is to be read."""

    name: str
    documents: tuple[Document, ...]


def read_text(source: str) -> Text:
    """The text in a file, or the one that comes with qwharf.

    Args:
        source: :data:`DEFAULT`, or a path. In a ``.jsonl`` file every line is a document: a string,
            or an object with ``text`` (a string) or ``messages`` (a chat, in OpenAI's shape).

    Raises:
        InvalidFile: it cannot be read, is not UTF-8 or too large, or a line is none of these.
        UsageError: there is nothing in it.
    """
    if source == DEFAULT:
        return Text(name=DEFAULT, documents=(texts.text("calibration"),))
    path = Path(source)
    try:
        content = read_bounded(path, MAX_TEXT_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise InvalidFile(
            source, found=str(e)[:200], expected="a text in UTF-8", hint="save it as UTF-8"
        ) from e
    lines = path.suffix.lower() == ".jsonl"
    documents = tuple(_documents(source, content)) if lines else (content,)
    if not any(documents) or not content.strip():
        raise UsageError(
            source,
            found="no text",
            expected="what the model is used for, some 50 kB or more",
            hint="`--calibrate default` takes the text that comes with qwharf",
        )
    return Text(name=path.name, documents=documents)


def _documents(source: str, content: str) -> Iterator[Document]:
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as e:
            raise _no_document(f"{source}, line {number}", str(e)[:200]) from e
        found = value
        if isinstance(value, dict):
            found = value.get("text", value.get("messages"))
        chat = isinstance(found, list) and all(isinstance(m, dict) for m in found)
        if not found or not (isinstance(found, str) or chat):
            raise _no_document(f"{source}, line {number}", json.dumps(value)[:100])
        yield found


def _no_document(subject: str, found: str) -> InvalidFile:
    return InvalidFile(
        subject,
        found=found,
        expected='"a text", {"text": "…"} or {"messages": […]}',
        hint="for plain text, give the file another ending than .jsonl",
    )


def sequences(text: Text, model: Path, most: int = MOST_SEQUENCES) -> list[list[int]]:
    """The first ``most`` sequences of ``text`` in the tokens of ``model``.

    Chats are rendered by the model's own template.

    Raises:
        InvalidFile: the model's tokenizer or template is missing, damaged, or fails on a chat.
        UsageError: the text is too short.
    """
    tokenizer = load_tokenizer(model)
    template = ""
    tokens: list[int] = []
    for document in text.documents:
        if len(tokens) >= most * SEQUENCE_TOKENS:
            break
        if not isinstance(document, str):
            template = template or load_chat_template(model)
            document = render(template, document, add_generation_prompt=False)
        whole = document.encode("utf-8", "replace").decode()  # JSON can hold half characters
        tokens += tokenizer.encode(whole)
    count = min(most, len(tokens) // SEQUENCE_TOKENS)
    if count < LEAST_SEQUENCES:
        raise UsageError(
            text.name,
            found=f"{len(tokens):,} tokens",
            expected=f"at least {LEAST_SEQUENCES * SEQUENCE_TOKENS:,}; 20,000 are better",
            hint="give a longer text, or `--calibrate default`",
        )
    starts = range(0, count * SEQUENCE_TOKENS, SEQUENCE_TOKENS)
    return [tokens[at : at + SEQUENCE_TOKENS] for at in starts]
