"""Two texts of our own, for measuring models: one to calibrate on, another to judge by.

Both mix prose, dialogue, arithmetic, code, tables and chats in Qwen3's template; mostly English,
some Chinese, a little of other languages. No sentence is in both.
"""

from __future__ import annotations

from importlib.resources import files

NAMES = ("calibration", "evaluation")


def text(name: str) -> str:
    """The text called ``name``, one of :data:`NAMES`."""
    return (files(__name__) / f"{name}.txt").read_text("utf-8")
