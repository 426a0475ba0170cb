"""How long to wait: long enough for a slow engine, never for a stuck one."""

from __future__ import annotations

from qwharf.verify.replies import Reply

LONGEST_SECONDS = 1800.0


class Pace:
    """Learns an endpoint's speed from its replies and derives each request's deadline."""

    def __init__(self, patience_seconds: float) -> None:
        self._patience = patience_seconds
        self._misses = 0
        self.seconds_per_token: float | None = None
        """Of generated text; the slowest seen."""
        self.prompt_tokens_per_second: float | None = None
        """Of prompts of 200 tokens and more; the slowest seen, so cached ones do not mislead."""

    def deadline(self, max_tokens: int, prompt_tokens: int = 0) -> float:
        """Seconds to give a request."""
        # An endpoint that has just let requests hang is not waited for as long again and again.
        patience = max(self._patience / 4.0**self._misses, min(5.0, self._patience))
        needed = 0.0 if self._misses else 4 * self.expected(max_tokens, prompt_tokens)
        return min(max(patience, needed), LONGEST_SECONDS)

    def expected(self, max_tokens: int, prompt_tokens: int = 0) -> float:
        """Seconds that a request takes at the slowest pace seen; 0 while none is known."""
        expected = max_tokens * (self.seconds_per_token or 0.0)
        if self.prompt_tokens_per_second:
            expected += prompt_tokens / self.prompt_tokens_per_second
        return expected

    def answered(self, reply: Reply, seconds: float) -> None:
        """Learn from a reply that took ``seconds`` in all."""
        self._misses = 0
        if reply.usage is None:
            return
        if reply.usage.completion_tokens >= 8:
            each = seconds / reply.usage.completion_tokens
            self.seconds_per_token = max(each, self.seconds_per_token or 0.0)
        elif reply.usage.prompt_tokens >= 200:
            speed = reply.usage.prompt_tokens / max(seconds, 1e-3)
            self.prompt_tokens_per_second = min(speed, self.prompt_tokens_per_second or speed)

    @property
    def given_up(self) -> bool:
        """Whether more than one deadline has passed since the last answer."""
        return self._misses > 1

    def missed(self) -> None:
        """A deadline passed without an answer."""
        self._misses += 1
