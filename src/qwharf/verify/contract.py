"""What a check is: one function, and the words that go with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from qwharf.errors import QwharfError
from qwharf.types import Check, Thinking

if TYPE_CHECKING:
    from qwharf.verify.probe import Probe

Need = Literal["reference", "context", "sampling"]
_Option = TypeVar("_Option")
ANY: frozenset[Thinking] = frozenset(("hybrid", "instruct", "thinking"))
THINKS: frozenset[Thinking] = frozenset(("hybrid", "thinking"))
HYBRID: frozenset[Thinking] = frozenset(("hybrid",))
INSTRUCT: frozenset[Thinking] = frozenset(("instruct",))
ALWAYS: frozenset[Thinking] = frozenset(("thinking",))

_NEEDS: dict[Need, str] = {
    "reference": "the checkpoint's own template and tokenizer (`--checkpoint PATH`)",
    "context": "the promised context (`--context N`)",
    "sampling": "the promised sampling",
}


class Broken(Exception):
    """The contract is broken; the text is the fact found."""


class Unclear(Exception):
    """The fact cannot be seen here; the text says why. Reported as a skip, never as a pass."""


class Weak(Exception):
    """The model, not the deployment, fell short; the text is what it did instead."""


def first_success(
    attempt: Callable[[_Option], str], options: Iterable[_Option], otherwise: str
) -> str:
    """The finding of the first attempt that succeeds: a weak model gets more than one chance.

    An attempt raises :class:`Weak` when the model fell short, and :class:`Broken`, which ends the
    matter, when the deployment is at fault.

    Raises:
        Broken: every attempt was weak; ``otherwise`` says so, with what came instead.
    """
    instead = []
    for option in options:
        try:
            return attempt(option)
        except Weak as e:
            instead.append(str(e))
    raise Broken(f"{otherwise}: {'; '.join(instead)}")


@dataclass(frozen=True, slots=True)
class CheckFunction:
    """A check of the contract: call it with a :class:`Probe` and get a :class:`Check`.

    ``body`` returns the fact found when the contract holds, and raises :class:`Broken` when not.
    """

    id: str
    title: str
    """What must hold, in a few words."""
    sends: str
    expected: str
    meaning: str
    """What a failure means for the user."""
    thinking: frozenset[Thinking]
    needs: tuple[Need, ...]
    body: Callable[[Probe], str]

    def __call__(self, probe: Probe) -> Check:
        """Run it; whatever goes wrong becomes a failed check with the fact found."""
        missing = self.missing(probe)
        if missing:
            return self._check("skip", found="", meaning=missing, seconds=0.0)
        start = time.monotonic()
        try:
            found = self.body(probe)
        except Broken as e:
            return self._check("fail", found=str(e), meaning=self.meaning, seconds=_since(start))
        except Unclear as e:
            return self._check("skip", found="", meaning=str(e), seconds=_since(start))
        except QwharfError as e:  # our own rendering failed, not the endpoint
            return self._check("fail", found=str(e), meaning=self.meaning, seconds=_since(start))
        except Exception as e:
            # An answer so odd that no line of the check foresaw it is a fact about the endpoint.
            odd = f"an answer that could not be read: {type(e).__name__}: {e}"[:500]
            return self._check("fail", found=odd, meaning=self.meaning, seconds=_since(start))
        return self._check("pass", found=found, meaning=self.meaning, seconds=_since(start))

    def missing(self, probe: Probe) -> str:
        """Why this check does not apply to the target; empty when it does."""
        target = probe.target
        if target.thinking not in self.thinking:
            kinds = " and ".join(sorted(self.thinking))
            return f"only for {kinds} models; this one is {target.thinking}"
        there = {
            "reference": target.reference is not None,
            "context": target.context_tokens is not None,
            "sampling": bool(target.sampling),
        }
        absent = [_NEEDS[n] for n in self.needs if not there[n]]
        return f"needs {' and '.join(absent)}" if absent else ""

    def _check(
        self, status: Literal["pass", "fail", "skip"], *, found: str, meaning: str, seconds: float
    ) -> Check:
        return Check(
            id=self.id,
            title=self.title,
            status=status,
            expected=self.expected,
            found=found,
            meaning=meaning,
            seconds=round(seconds, 3),
        )


def check(
    id: str,
    *,
    title: str,
    sends: str,
    expected: str,
    meaning: str,
    thinking: frozenset[Thinking] = ANY,
    needs: tuple[Need, ...] = (),
) -> Callable[[Callable[[Probe], str]], CheckFunction]:
    """Make a check of a function ``(Probe) -> fact found``; see :class:`CheckFunction`."""

    def made(body: Callable[[Probe], str]) -> CheckFunction:
        return CheckFunction(
            id=id,
            title=title,
            sends=sends,
            expected=expected,
            meaning=meaning,
            thinking=thinking,
            needs=needs,
            body=body,
        )

    return made


def _since(start: float) -> float:
    return time.monotonic() - start
