"""Streams and replies are read strictly, and a stream adds up to the whole."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwharf.verify import replies, sse
from qwharf.verify.contract import Broken


def chopped(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({c % (len(data) + 1) for c in cuts})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@given(
    texts=st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))),
    cuts=st.lists(st.integers(0, 10_000), max_size=12),
    end=st.sampled_from(["\n\n", "\r\n\r\n"]),
)
def test_events_survive_any_packet_borders(texts: list[str], cuts: list[int], end: str) -> None:
    body = "".join(f": ping{end}data: {t}{end}" for t in texts).encode()
    assert list(sse.events(chopped(body, cuts))) == texts


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_are_read_or_refused(pieces: list[bytes]) -> None:
    try:
        for data in sse.events(pieces):
            sse.parse(data)
    except Broken as e:
        assert str(e)


@pytest.mark.parametrize(
    ("body", "fact"),
    [
        (b"data: \xc3\n\n", "not UTF-8"),
        (b"data: {\n\n", "not JSON"),
        (b"data: [1]\n\n", "not a JSON object"),
        (b'data: {"error": {"message": "engine died"}}\n\n', "engine died"),
        (b'data: {"id": 1', "ended within an event"),
    ],
)
def test_broken_streams_are_named(body: bytes, fact: str) -> None:
    with pytest.raises(Broken, match=fact):
        [sse.parse(d) for d in sse.events([body])]


def test_an_endless_event_is_not_collected() -> None:
    with pytest.raises(Broken, match="longer than"):
        list(sse.events(b"x" * 2**20 for _ in range(9)))


def delta(**fields: Any) -> dict[str, Any]:
    return {"id": "1", "choices": [{"index": 0, "delta": fields}]}


def test_a_stream_adds_up_to_the_whole() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    message = {"content": "hello", "reasoning": "why", "tool_calls": [call]}
    choice = {"message": message, "finish_reason": "tool_calls"}
    whole = replies.whole({"id": "1", "choices": [choice], "usage": usage})
    head = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": ""}}
    parts = [{"index": 0, "function": {"arguments": a}} for a in ('{"a"', ": 1}")]
    streamed = replies.streamed(
        [
            delta(role="assistant", content=None),
            delta(reasoning="wh"),
            delta(reasoning="y"),
            delta(content="hel"),
            delta(content="lo"),
            delta(tool_calls=[head]),
            *(delta(tool_calls=[p]) for p in parts),
            {"id": "1", "choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
            {"id": "1", "choices": [], "usage": usage},
        ],
        done=True,
    )
    for name in ("content", "reasoning", "reasoning_field", "tool_calls", "finish_reason", "usage"):
        assert getattr(whole, name) == getattr(streamed, name), name
    assert whole.tool_calls[0].parsed() == {"a": 1}
    assert whole.reasoning_field == "reasoning"


@pytest.mark.parametrize(
    ("message", "fact"),
    [
        ({"content": ["x"]}, "`content` is list"),
        ({"tool_calls": [{"function": {"name": "f"}}]}, "without function.name"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": {}}}]}, "are dict"),
    ],
)
def test_odd_messages_are_named(message: dict[str, Any], fact: str) -> None:
    with pytest.raises(Broken, match=fact):
        replies.whole({"choices": [{"message": message}]})


@pytest.mark.parametrize(
    ("parts", "fact"),
    [
        ([{"function": {"name": "f"}}], "without an index"),
        ([{"index": 0, "id": "a"}, {"index": 0, "id": "b"}], "changes its id"),
        ([{"index": 0, "function": {"arguments": {}}}], "not text"),
    ],
)
def test_odd_deltas_are_named(parts: list[Any], fact: str) -> None:
    with pytest.raises(Broken, match=fact):
        replies.streamed([delta(tool_calls=[p]) for p in parts], done=True)


@pytest.mark.parametrize(
    ("content", "reasoning", "leaks", "fumbles"),
    [
        ("fine", "fine", False, False),
        ("<think>\nx", "", True, False),
        ("x", "</think> x", True, False),
        ('<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>', "", True, False),
        ('<tool_call>\n{"name": "f", "argum', "", True, True),
        ("<tool_call>\nf()\n</tool_call>", "", True, True),
        ("x", "a <tool_call> would help", False, False),
    ],
)
def test_leaks_and_fumbles(content: str, reasoning: str, leaks: bool, fumbles: bool) -> None:
    """A whole call left in text is the parser's fault, half a call the model's."""
    reply = replies.Reply(content=content, reasoning=reasoning, reasoning_field=None)
    assert bool(reply.leaked()) is leaks
    assert reply.fumbled() is fumbles


@pytest.mark.parametrize("arguments", ["", "[]", "{", "null"])
def test_arguments_that_are_no_object_are_named(arguments: str) -> None:
    with pytest.raises(Broken, match="arguments of `f`"):
        replies.ToolCall("1", "f", arguments).parsed()


def test_long_texts_are_shortened() -> None:
    assert len(replies.shown("x" * 999)) < 130
    assert json.loads(replies.shown("ab").replace("'", '"')) == "ab"
