"""What a deployment, or an adapter on it, may be called: one rule for everybody who makes a name.

Names stand in URLs, file names, logs and clients' configurations, so they keep to ASCII.
"""

from __future__ import annotations

import re

from qwharf.errors import UsageError

MAX_NAME = 64
RULE = f"letters, digits, `.`, `_` and `-`, at most {MAX_NAME}, a letter or digit first"
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME - 1}}}")


def is_name(text: str) -> bool:
    """Whether something may be called so."""
    return _NAME.fullmatch(text) is not None


def checked_name(text: str, what: str = "deployment", option: str = "--name") -> str:
    """``text``, if it may be a name.

    Args:
        text: the name.
        what: is called so.
        option: that gives another one.

    Raises:
        UsageError: it may not.
    """
    if not is_name(text):
        raise UsageError(
            text,
            found=f"not a name for a {what}",
            expected=RULE,
            hint=f"give another with {option}",
        )
    return text


def name_from(text: str) -> str:
    """The nearest name to ``text``: ``qwen3-8b`` for ``Qwen3:8B``."""
    kept = (c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in text.lower())
    return "".join(kept).strip("-._")[:MAX_NAME] or "model"
