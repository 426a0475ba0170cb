"""Structured output: the schema is enforced, not merely suggested."""

from __future__ import annotations

import json
from typing import Any

from qwharf.verify.contract import Broken, check
from qwharf.verify.probe import Probe
from qwharf.verify.replies import Reply, shown
from qwharf.verify.schema import violation
from qwharf.verify.thinking import no_leak

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["Paris", "Rome", "Berlin"]},
        "visited": {"type": "boolean"},
        "season": {"type": "string", "enum": ["spring", "summer", "autumn", "winter"]},
    },
    "required": ["city", "visited", "season"],
    "additionalProperties": False,
}


@check(
    "json-format",
    title="a JSON schema is enforced",
    sends="questions that do not speak of JSON, with `response_format` of type `json_schema`",
    expected="content that parses and satisfies the schema, whole and streamed",
    meaning="Programs that rely on structured output get prose.",
)
def json_format(probe: Probe) -> str:
    """The grammar holds whatever the model would rather say."""
    wanted = {"name": "trip", "strict": True, "schema": SCHEMA}
    found = ""
    for question, stream in (("Hello!", False), ("Which city do you like?", True)):
        reply = probe.chat(
            question,
            stream=stream,
            thinking=probe.off,
            max_tokens=128,
            response_format={"type": "json_schema", "json_schema": wanted},
        )
        found = _satisfied(reply)
    return found


def _satisfied(reply: Reply) -> str:
    no_leak(reply)
    try:
        value = json.loads(reply.content)
    except ValueError as e:
        raise Broken(f"not JSON: {shown(reply.content)}") from e
    wrong = violation(value, SCHEMA)
    if wrong:
        raise Broken(f"{wrong}: {shown(reply.content)}")
    return shown(reply.content, 80)
