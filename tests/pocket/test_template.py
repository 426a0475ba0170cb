"""The pocket model's chat template, held against the golden hashes of Qwen3's own rendering."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from qwharf.catalog.pocket import FOLDER
from qwharf.errors import InvalidFile
from qwharf.formats.chat_template import load_chat_template, render

TEMPLATE = (FOLDER / "chat_template.jinja").read_text("utf-8")
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather in °C",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
OBJECT_CALL = {"function": {"name": "get_weather", "arguments": {"city": "Köln"}}}
TEXT_CALL = {"function": {"name": "get_weather", "arguments": '{"city":"Köln"}'}}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **fields}


def tool(text: str) -> dict[str, Any]:
    return {"role": "tool", "content": text}


BRIEF = {"role": "system", "content": "Be brief."}
LOOP = [
    user("W?"),
    assistant("Let me see.", reasoning_content="r1", tool_calls=[TEXT_CALL]),
    tool("5"),
]
OFF = {"enable_thinking": False}
NO_GEN = {"add_generation_prompt": False}
GOLDEN: list[tuple[str, list[dict[str, Any]], bool, dict[str, Any], int, str]] = [
    ("one question", [user("Hi")], False, {}, 52, "49ea1cfb1efb78e5"),
    ("thinking off", [user("Hi")], False, OFF, 71, "87b9f5b6243d8823"),
    ("system", [BRIEF, user("Hi")], False, {}, 91, "c1254af41d720981"),
    (
        "inline thinking dropped",
        [user("a"), assistant("<think>\nr1\n</think>\n\nA"), user("b")],
        False,
        {},
        114,
        "2de41cfb95ce0f06",
    ),
    ("last answer", [user("a"), assistant("A")], False, NO_GEN, 82, "0f1a044ce931f681"),
    (
        "last answer with reasoning",
        [user("a"), assistant("A", reasoning_content="r1")],
        False,
        NO_GEN,
        84,
        "dd638770db219791",
    ),
    ("tools and system", [BRIEF, user("W?")], True, {}, 654, "02ddc5fecc10787f"),
    ("tools", [user("W?")], True, {}, 643, "6645a17ce7cd3a11"),
    (
        "two calls, two results",
        [
            user("W?"),
            assistant("<think>\nr1\n</think>\n\n", tool_calls=[OBJECT_CALL, OBJECT_CALL]),
            tool("5"),
            tool("6"),
        ],
        True,
        {},
        953,
        "c2a35d53733f6e78",
    ),
    ("text before a call", LOOP, True, {}, 849, "74fcac8a845d973b"),
    (
        "a new question ends the loop",
        [*LOOP, assistant("It is 5", reasoning_content="r2"), user("thx")],
        True,
        {},
        899,
        "fae4d0a2d6474025",
    ),
    (
        "two answers in a row",
        [user("a"), assistant("A1"), assistant("A2")],
        False,
        NO_GEN,
        118,
        "ddc6e61c128444b0",
    ),
    (
        "system in the middle",
        [user("a"), {"role": "system", "content": "mid"}, user("b")],
        False,
        {},
        113,
        "e8ec3142c9a7402f",
    ),
]


@pytest.mark.parametrize(
    ("messages", "tools", "variables", "length", "sha"),
    [g[1:] for g in GOLDEN],
    ids=[g[0] for g in GOLDEN],
)
def test_golden(
    messages: list[dict[str, Any]], tools: bool, variables: dict[str, Any], length: int, sha: str
) -> None:
    text = render(TEMPLATE, messages, [TOOL] if tools else None, **variables)
    assert len(text) == length, text
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == sha


def test_fixed_parts_of_the_tool_turn() -> None:
    text = render(TEMPLATE, [user("W?")], [TOOL])
    start, opening = text.index("# Tools"), text.index("<tools>") + len("<tools>")
    closing, end = text.index("\n</tools>"), text.index("<|im_end|>")
    preamble, rest = text[start:opening], text[closing:end]
    hashes = [hashlib.sha256(t.encode()).hexdigest() for t in (preamble, rest)]
    assert [len(preamble), len(rest)] == [132, 213]
    assert hashes == [
        "efb85184f61031c502e9cbec6bceb94053ea5baeb87c8af1b92d77ce92ba5e08",
        "6709bb8b0113e0b380182998e500d0a642d5b5dc261e3c95ffcade3f489c05ce",
    ]


@pytest.mark.parametrize("switch", ["false", 0, None, True, ""])
def test_only_false_switches_thinking_off(switch: Any) -> None:
    assert render(TEMPLATE, [user("Hi")], enable_thinking=switch) == render(TEMPLATE, [user("Hi")])


def test_empty_tools_are_no_tools() -> None:
    assert render(TEMPLATE, [user("Hi")], []) == render(TEMPLATE, [user("Hi")])


def test_a_flat_call_is_as_good_as_a_nested_one() -> None:
    texts = [
        render(TEMPLATE, [user("W?"), assistant("", tool_calls=[c]), tool("5")], [TOOL])
        for c in (OBJECT_CALL, OBJECT_CALL["function"])
    ]
    assert texts[0] == texts[1]


def test_reasoning_beside_an_inline_block_keeps_both() -> None:
    inline = assistant("<think>\nr1\n</think>\n\nA", reasoning_content="r2")
    text = render(TEMPLATE, [user("a"), inline], add_generation_prompt=False)
    assert text.count("<think>") == 2


def test_null_is_empty_and_parts_are_refused() -> None:
    calling = {"role": "assistant", "content": None, "tool_calls": [OBJECT_CALL]}
    absent = {k: v for k, v in calling.items() if k != "content"}
    texts = {
        render(TEMPLATE, [user("W?"), a, tool("5")], [TOOL])
        for a in (calling, absent, {**calling, "content": ""})
    }
    assert len(texts) == 1
    with pytest.raises(InvalidFile, match="must be text"):
        render(TEMPLATE, [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}])


def test_a_wrapped_tool_response_is_not_a_question() -> None:
    wrapped = user("<tool_response>\n5\n</tool_response>")
    loop = [user("W?"), assistant("x", reasoning_content="r1"), wrapped]
    assert "r1" in render(TEMPLATE, loop)
    assert "r1" not in render(TEMPLATE, [*loop[:2], user("<tool_response> 5")])


def test_the_template_is_in_both_places() -> None:
    import json

    config = json.loads((FOLDER / "tokenizer_config.json").read_text("utf-8"))
    assert config["chat_template"] == TEMPLATE
    assert load_chat_template(Path(FOLDER)) == TEMPLATE
