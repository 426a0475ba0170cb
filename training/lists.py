"""The word lists of ``lists.txt``, by name."""

from __future__ import annotations

from pathlib import Path


def _read() -> dict[str, list[str]]:
    lists: dict[str, list[str]] = {}
    text = Path(__file__).with_name("lists.txt").read_text("utf-8")
    for part in text.split("\n["):
        name, _, words = part.lstrip("[").partition("]\n")
        lists[name] = [w.strip() for w in words.replace("\n", " ").split(";")]
    return lists


LISTS = _read()
