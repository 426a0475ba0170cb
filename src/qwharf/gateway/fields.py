"""Reading the fields of a request: typed, bounded, refused by name; ``null`` is absent."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from qwharf.gateway.errors import bad

JsonObject = dict[str, Any]


def shown(value: Any, limit: int = 60) -> str:
    """``value`` in a sentence, short."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= limit else f"{text[:limit]}…"


class Fields:
    """The object at ``path`` of a request; knows which of its fields were looked at."""

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self._values = values
        self._prefix = f"{path}." if path else ""
        self._seen: set[str] = set()

    def name(self, field: str) -> str:
        """The full name of a field, for an error."""
        return self._prefix + field

    def get(self, field: str) -> Any:
        """The value as it is; ``None`` where absent or null."""
        self._seen.add(field)
        return self._values.get(field)

    def unread(self) -> list[str]:
        """Fields that nobody looked at and that hold something, in their order."""
        return [k for k, v in self._values.items() if k not in self._seen and v is not None]

    def skip(self, fields: Collection[str]) -> None:
        """Count ``fields`` as looked at."""
        self._seen.update(fields)

    def _wrong(self, field: str, value: Any, expected: str) -> Exception:
        return bad(
            self.name(field), f"`{self.name(field)}` is {shown(value)}; expected {expected}."
        )

    def boolean(self, field: str) -> bool | None:
        """True or false; text and numbers are refused."""
        value = self.get(field)
        if value is None or isinstance(value, bool):
            return value
        raise self._wrong(field, value, "true or false (not in quotes)")

    def number(self, field: str, low: float, high: float) -> float | None:
        """A finite number from ``low`` to ``high``."""
        value = self.get(field)
        if value is None:
            return None
        expected = f"a number from {low:g} to {high:g}"
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(field, value, expected)
        if not low <= value <= high or not math.isfinite(value):
            raise self._wrong(field, value, expected)
        return value

    def integer(self, field: str, low: int, high: int) -> int | None:
        """A whole number from ``low`` to ``high``; 3.0 counts as 3."""
        value = self.get(field)
        if value is None:
            return None
        expected = f"a whole number from {low:,} to {high:,}"
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(field, value, expected)
        if not low <= value <= high:
            raise self._wrong(field, value, expected)
        return value

    def text(self, field: str) -> str | None:
        """A string."""
        value = self.get(field)
        if value is None or isinstance(value, str):
            return value
        raise self._wrong(field, value, "text")

    def choice(self, field: str, options: Collection[str]) -> str | None:
        """One of a few words."""
        value = self.get(field)
        if value is None or (isinstance(value, str) and value in options):
            return value
        raise self._wrong(field, value, f"one of {', '.join(options)}")

    def object(self, field: str) -> JsonObject | None:
        """An object."""
        value = self.get(field)
        if value is None or isinstance(value, dict):
            return value
        raise self._wrong(field, value, "an object")

    def list(self, field: str) -> list[Any] | None:
        """A list."""
        value = self.get(field)
        if value is None or isinstance(value, list):
            return value
        raise self._wrong(field, value, "a list")
