"""Text of a reply as it comes: which part is thought, which a call, and which is said."""

from __future__ import annotations

from collections.abc import Collection, Iterator

REASONING, CONTENT, CALL = "reasoning", "content", "call"
OPENING = {REASONING: "<think>", CALL: "<tool_call>"}
CLOSING = {REASONING: "</think>", CALL: "</tool_call>"}

Piece = tuple[str, str]
"""What it is, and the text without its tags."""


class Tags:
    """Cuts text at its tags.

    A call comes whole, when it is closed; all else as soon as it is certain. A call within the
    thinking ends that, as engines have it; a thought within a call is but text.

    Args:
        kinds: whose tags count; others are text.
        begins: what the text is before its first tag.
    """

    def __init__(self, kinds: Collection[str], begins: str = CONTENT) -> None:
        self._kinds = [k for k in (REASONING, CALL) if k in kinds]
        self._kind = begins
        self._held = ""

    def feed(self, text: str) -> Iterator[Piece]:
        """The pieces that are certain with ``text``."""
        self._held += text
        while found := self._next():
            at, tag, kind = found
            before, self._held = self._held[:at], self._held[at + len(tag) :]
            if before or self._kind == CALL:
                yield self._kind, before
            self._kind = kind
        if self._kind != CALL:
            keep = max((_overlap(self._held, tag) for tag in self._awaited()), default=0)
            certain = self._held[: len(self._held) - keep]
            self._held = self._held[len(certain) :]
            if certain:
                yield self._kind, certain

    def end(self) -> Iterator[Piece]:
        """What was held back: no tag after all, or a call that was never closed."""
        rest, self._held = self._held, ""
        if self._kind == CALL:
            yield CONTENT, OPENING[CALL] + rest
        elif rest:
            yield self._kind, rest
        self._kind = CONTENT

    def _awaited(self) -> dict[str, str]:
        """The tags that mean something now, and what begins with each."""
        if self._kind == CALL:
            return {CLOSING[CALL]: CONTENT}
        made = {OPENING[k]: k for k in self._kinds}
        return made | ({CLOSING[REASONING]: CONTENT} if REASONING in self._kinds else {})

    def _next(self) -> tuple[int, str, str] | None:
        found = [(self._held.find(tag), tag, kind) for tag, kind in self._awaited().items()]
        return min((f for f in found if f[0] >= 0), default=None)


def _overlap(text: str, tag: str) -> int:
    """How much of the end of ``text`` may be the beginning of ``tag``."""
    longest = min(len(text), len(tag) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(tag[:n])), 0)


class Breaks:
    """Leaves out the line breaks that the template puts around thinking: they are no part of it.

    llama.cpp's server does the same; vLLM, mlx-lm and Ollama leave some of them in.
    """

    def __init__(self) -> None:
        self._opened = self._thought = self._said = False
        self._held = ""

    def reasoning(self, text: str) -> str:
        """What of ``text`` goes on; breaks at its end wait for more."""
        self._opened = True
        text = self._held + (text if self._thought else text.lstrip("\n"))
        kept = text.rstrip("\n")
        self._thought = self._thought or bool(kept)
        self._held = text[len(kept) :]
        return kept

    def content(self, text: str) -> str:
        """What of ``text`` goes on."""
        if self._opened and not self._said:
            text = text.lstrip("\n")
        self._held = ""
        self._said = self._said or bool(text)
        return text
