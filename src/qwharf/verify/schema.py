"""The little of JSON Schema that the checks' own schemas use."""

from __future__ import annotations

from typing import Any

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}


def violation(value: Any, schema: dict[str, Any], where: str = "it") -> str | None:
    """What is wrong with ``value`` by ``schema``, or ``None``: type, enum, required, items."""
    kind = schema.get("type")
    if kind is not None:
        wrong_bool = isinstance(value, bool) and kind != "boolean"
        if wrong_bool or not isinstance(value, _TYPES[kind]):
            return f"{where} is {type(value).__name__}, not {kind}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} is {value!r}, none of {schema['enum']}"
    if isinstance(value, dict):
        return _object(value, schema, where)
    if isinstance(value, list) and "items" in schema:
        for i, item in enumerate(value):
            found = violation(item, schema["items"], f"{where}[{i}]")
            if found:
                return found
    return None


def _object(value: dict[str, Any], schema: dict[str, Any], where: str) -> str | None:
    properties = schema.get("properties", {})
    missing = [k for k in schema.get("required", ()) if k not in value]
    if missing:
        return f"{where} lacks {', '.join(missing)}"
    if schema.get("additionalProperties") is False:
        extra = sorted(set(value) - set(properties))
        if extra:
            return f"{where} has {', '.join(extra)} on top"
    for name, inner in properties.items():
        if name in value:
            found = violation(value[name], inner, f"{where}.{name}")
            if found:
                return found
    return None
