"""Text of a reply as it comes: which part is thought, and where its blank lines go."""

from __future__ import annotations

from collections.abc import Iterator

REASONING, CONTENT, CALL = "reasoning", "content", "call"
_TAGS = {
    "<think>": REASONING,
    "</think>": CONTENT,
    "<tool_call>": CALL,
    "</tool_call>": CONTENT,
}


class Tags:
    """Cuts text at its tags: to each piece, whether it is thought, said, or a call.

    Args:
        calls: whether the tags of calls count; they are text otherwise.
        begins: what the text is before its first tag.
    """

    def __init__(self, *, calls: bool, begins: str = CONTENT) -> None:
        self._tags = {t: k for t, k in _TAGS.items() if calls or "think" in t}
        self._kind = begins
        self._held = ""

    def feed(self, text: str) -> Iterator[tuple[str, str]]:
        """The pieces that are certain with ``text``; what may be half a tag is held back."""
        text = self._held + text
        while text:
            at, tag = min(((text.find(t), t) for t in self._tags if t in text), default=(-1, ""))
            if at < 0:
                break
            if at:
                yield self._kind, text[:at]
            if self._kind == CALL and tag != "</tool_call>":
                yield self._kind, tag  # within a call it is but text
            else:
                self._kind = self._tags[tag]
            text = text[at + len(tag) :]
        keep = max((n for t in self._tags for n in _overlaps(text, t)), default=0)
        self._held = text[len(text) - keep :]
        if len(text) > keep:
            yield self._kind, text[: len(text) - keep]

    def end(self) -> Iterator[tuple[str, str]]:
        """What was held back: it was no tag."""
        if self._held:
            yield self._kind, self._held
        self._held = ""


def _overlaps(text: str, tag: str) -> Iterator[int]:
    """Lengths of the ends of ``text`` that ``tag`` begins with."""
    return (n for n in range(1, min(len(tag), len(text) + 1)) if text.endswith(tag[:n]))


class Breaks:
    """Leaves out the line breaks that the template puts around thinking: they are no part of it.

    llama.cpp's server does the same; vLLM, mlx-lm and Ollama leave some of them in.
    """

    def __init__(self) -> None:
        self._thought = self._said = False
        self._thinking = False
        self._held = ""

    def reasoning(self, text: str) -> str:
        """What of ``text`` goes on; breaks at its end wait for more."""
        self._thought = True
        text = self._held + text
        if not self._thinking:
            text = text.lstrip("\n")
        kept = text.rstrip("\n")
        self._thinking = self._thinking or bool(kept)
        self._held = text[len(kept) :] if self._thinking else ""
        return kept

    def content(self, text: str) -> str:
        """What of ``text`` goes on."""
        self._held = ""
        if self._thought and not self._said:
            text = text.lstrip("\n")
        self._said = self._said or bool(text)
        return text
