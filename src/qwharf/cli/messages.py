"""Errors as sentences: what is wrong, what was found, what was expected, what to do next."""

from __future__ import annotations

from typing import Any

from qwharf.cli.text import harmless
from qwharf.codec import encode
from qwharf.errors import QwharfError


def sentence(error: QwharfError) -> str:
    """The error for a person, in one paragraph; the hint is apart, see :func:`report`."""
    text = f"{error.summary}: `{error.subject}`"
    facts = []
    if error.found:
        facts.append(f"found {error.found}")
    if error.expected:
        facts.append(f"expected {error.expected}")
    return harmless(text + (": " + "; ".join(facts) if facts else ""))


def report(error: QwharfError) -> dict[str, Any]:
    """The error for a program: the documented shape of ``{"error": …}``."""
    return {
        "error": {
            "code": error.code,
            "exit_code": error.exit_code,
            "message": sentence(error),
            "subject": error.subject,
            "found": error.found,
            "expected": error.expected,
            "hint": error.hint,
            "facts": encode(error.facts),
        }
    }
