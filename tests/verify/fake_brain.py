"""What a well-behaved Qwen3 would write, tags and all: rules instead of weights.

The text is what a model generates after its prompt; taking it apart is the endpoint's business.
"""

import json
import random
import re
from typing import Any

STORY = "once there was a small grey cat who lived by the cold green sea and sang all night"
WORDS = STORY.split()
OPEN = ("Tell", "Write", "Who")
CAPITALS = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid"}
CITY = re.compile(r"in ([A-Z]\w+)")
EVENT = re.compile(r"title (\w+), city (\w+), street (\w+) and attendees (\w+), (\w+)")


def generate(
    messages: list[dict[str, Any]], tools: list[dict[str, Any]], thinks: bool, body: dict[str, Any]
) -> str:
    """The reply to a conversation, with its think block when ``thinks``."""
    question = _question(messages)
    answer = _answer(messages, question, tools, body)
    if not thinks:
        return answer
    if _softly_off(messages):
        return f"<think>\n\n</think>\n\n{answer}"
    thought = " ".join(_sampled(body)) if question.startswith(OPEN) else question
    return f"<think>\n{thought} Let me see.\n</think>\n\n{answer}"


def _question(messages: list[dict[str, Any]]) -> str:
    asked = [m["content"] for m in messages if m["role"] == "user"]
    return re.sub(r"\s*/(no_)?think", "", asked[-1]) if asked else ""


def _softly_off(messages: list[dict[str, Any]]) -> bool:
    said = " ".join(m["content"] for m in messages if m["role"] in ("user", "system"))
    switches = re.findall(r"/(?:no_)?think\b", said)
    return bool(switches) and switches[-1] == "/no_think"


def _answer(
    messages: list[dict[str, Any]], question: str, tools: list[dict[str, Any]], body: dict[str, Any]
) -> str:
    if messages[-1]["role"] == "tool":
        return f"It is {messages[-1]['content']}."
    calls = _calls(question, {t["function"]["name"] for t in tools})
    if calls:
        return "\n".join(
            f'<tool_call>\n{{"name": "{n}", "arguments": {json.dumps(a)}}}\n</tool_call>'
            for n, a in calls
        )
    if question.startswith("Repeat: "):
        return question.removeprefix("Repeat: ")
    if question.startswith("Count"):
        return ", ".join(map(str, range(1, 31)))
    if capital := re.search(r"capital of (\w+)", question):
        return f"The capital of {capital[1]} is {CAPITALS[capital[1]]}."
    if sums := re.search(r"(\d+)\+(\d+)", question):
        return f"It is {int(sums[1]) + int(sums[2])}."
    if question.startswith(OPEN):
        return " ".join(_sampled(body))
    return "Hello! How can I help you today?"


def _calls(question: str, known: set[str]) -> list[tuple[str, dict[str, Any]]]:
    made: list[tuple[str, dict[str, Any]]] = []
    if question.startswith("What is the weather"):
        made = [("get_weather", {"city": c}) for c in CITY.findall(question)]
    elif "time" in question:
        made = [("get_time", {})]
    elif sums := re.match(r"Add (\d+) and (\d+)", question):
        made = [("add", {"a": int(sums[1]), "b": int(sums[2])})]
    elif event := EVENT.search(question):
        place = {"city": event[2], "street": event[3]}
        arguments = {"title": event[1], "location": place, "attendees": [event[4], event[5]]}
        made = [("create_event", arguments)]
    return [c for c in made if c[0] in known]


def _sampled(body: dict[str, Any]) -> list[str]:
    """Words drawn as the request's sampling has it; one choice left is no choice."""
    narrow = (
        body["temperature"] == 0 or body["top_k"] == 1 or body["top_p"] < 0.01 or body["min_p"] >= 1
    )
    if narrow:
        return WORDS
    rng = random.Random(body.get("seed"))
    return [rng.choice(WORDS) for _ in WORDS]


def instance(schema: dict[str, Any]) -> Any:
    """Some value that satisfies ``schema``."""
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        return {k: instance(v) for k, v in schema["properties"].items()}
    return {"boolean": True, "string": "x", "integer": 1}[schema["type"]]
