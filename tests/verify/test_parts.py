"""The small parts: deadlines, schemas, conversations."""

import json

import pytest

from qwharf.types import Thinking
from qwharf.verify import Reference
from qwharf.verify.conversations import conversations, random_conversations
from qwharf.verify.pace import Pace
from qwharf.verify.replies import Reply, Usage
from qwharf.verify.schema import violation
from qwharf.verify.template import difference
from qwharf.verify.tools import EVENT

SCHEMA = EVENT["function"]["parameters"]
GOOD = {"title": "x", "location": {"city": "y", "street": "z"}, "attendees": ["a"]}


def reply(prompt: int, made: int) -> Reply:
    usage = Usage(prompt, made, prompt + made)
    return Reply(content="", reasoning="", reasoning_field=None, usage=usage)


def test_deadlines_follow_the_pace() -> None:
    pace = Pace(60)
    assert pace.deadline(1000) == 60
    pace.answered(reply(10, 100), seconds=50)  # two tokens a second
    assert pace.deadline(300) == 4 * 150
    assert pace.deadline(10**9) == 1800
    pace.answered(reply(1000, 1), seconds=10)
    assert pace.deadline(2, 10_000) == 4 * (1 + 100)


def test_a_stuck_endpoint_is_given_up_sooner_each_time() -> None:
    pace = Pace(60)
    waits = []
    for _ in range(4):
        waits.append(pace.deadline(1000))
        pace.missed()
    assert waits == sorted(waits, reverse=True)
    assert waits[-1] == 5
    pace.answered(reply(1, 1), seconds=1)
    assert pace.deadline(8) == 60


def test_one_miss_is_no_giving_up() -> None:
    pace = Pace(60)
    pace.missed()
    assert not pace.given_up
    pace.missed()
    assert pace.given_up
    pace.answered(reply(1, 8), seconds=80)
    assert not pace.given_up and pace.expected(100) == 1000


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({}, None),
        ({"title": 1}, "it.title is int"),
        ({"location": {"city": "y"}}, "it.location lacks street"),
        ({"location": {"city": "y", "street": True}}, "it.location.street is bool"),
        ({"attendees": ["a", 2]}, r"it.attendees[1] is int"),
        ({"attendees": "a"}, "it.attendees is str"),
    ],
)
def test_schemas(changes: dict[str, object], fact: str | None) -> None:
    found = violation(GOOD | changes, SCHEMA)
    assert found is None if fact is None else fact in str(found)


def test_schemas_may_close_objects_and_choices() -> None:
    closed = {"type": "object", "properties": {"a": {"enum": [1]}}, "additionalProperties": False}
    assert violation({"a": 1}, closed) is None
    assert "none of" in str(violation({"a": 2}, closed))
    assert "on top" in str(violation({"b": 2}, closed))


@pytest.mark.parametrize("kind", ["hybrid", "instruct", "thinking"])
def test_conversations_are_what_every_server_renders_alike(
    kind: Thinking, reference: Reference
) -> None:
    drawn = list(random_conversations(kind, 60, seed=1))
    assert drawn == list(random_conversations(kind, 60, seed=1))
    for each in (*conversations(kind), *drawn):
        assert each.messages[-1]["role"] in ("user", "tool"), each.name
        assert kind == "hybrid" or each.thinking is None
        for message in each.messages:
            for call in message.get("tool_calls", ()):
                assert isinstance(json.loads(call["function"]["arguments"]), dict)
            assert not ("</think>" in message["content"] and "reasoning_content" in message)
        assert reference.tokens(each.messages, each.tools)


def test_conversations_reach_every_part_of_the_template() -> None:
    """Each feature of the template occurs, so that a template without it would differ."""
    every = (*conversations("hybrid"), *random_conversations("hybrid", 40, seed=3))
    messages = [m for c in every for m in c.messages]
    assert {c.thinking for c in every} == {None, True, False}
    assert any(len(m.get("tool_calls", ())) > 1 for m in messages)
    assert any(m.get("reasoning_content") for m in messages)
    assert any("</think>" in m["content"] for m in messages)
    assert any(c.messages[0]["role"] == "system" and c.tools for c in every)
    assert any(m["role"] == "system" for c in every for m in c.messages[1:])


def test_a_difference_is_shown_with_its_place() -> None:
    said = difference("abc" * 20, "abc" * 19 + "abd")
    assert "at character 59" in said
