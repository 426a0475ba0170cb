"""A whole answer is what the engine itself would have written."""

import json
from typing import Any

import pytest
from gateway_doubles import FRAME, USAGE, chunk, event

from qwharf.gateway.assembly import Assembly
from qwharf.gateway.errors import ApiError


def made(*events: str) -> dict[str, Any]:
    assembly = Assembly()
    for e in events:
        assembly.feed(e.encode())
    return assembly.result()


def test_reasoning_calls_and_log_probabilities() -> None:
    entry = {"id": 5, "token": "a", "bytes": [97], "logprob": -0.5, "top_logprobs": []}
    function = {"name": "f", "arguments": ""}
    result = made(
        chunk({"role": "assistant", "content": None}),
        ": ping\n\n" + chunk({"reasoning_content": "Let "}) + chunk({"reasoning_content": "me."}),
        chunk({"content": "So."}, logprobs={"content": [entry]}),
        chunk({"tool_calls": [{"index": 0, "id": "c0", "type": "function", "function": function}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]}),
        chunk({"tool_calls": [{"index": 1, "id": "c1", "function": {"name": "g"}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}),
        chunk({}, "tool_calls"),
        event({"choices": [], "usage": USAGE, "timings": {"x": 1}} | FRAME),
        "data: [DONE]\n\n",
    )
    assert result["choices"] == [
        {
            "finish_reason": "tool_calls",
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "So.",
                "reasoning_content": "Let me.",
                "tool_calls": [
                    {
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"a":1}'},
                        "id": "c0",
                    },
                    {"type": "function", "function": {"name": "g", "arguments": ""}, "id": "c1"},
                ],
            },
            "logprobs": {"content": [entry]},
        }
    ]
    assert result["object"] == "chat.completion"
    assert (result["usage"], result["timings"]) == (USAGE, {"x": 1})


def test_a_plain_completion() -> None:
    frame = FRAME | {"object": "text_completion"}

    def piece(text: str, finish: str | None) -> str:
        choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}
        return event({"choices": [choice]} | frame)

    result = made(piece("a", None), piece("b", None), piece("", "length"), "data: [DONE]\n\n")
    assert result["choices"] == [
        {"text": "ab", "index": 0, "logprobs": None, "finish_reason": "length"}
    ]
    assert result["object"] == "text_completion"


@pytest.mark.parametrize("error", [{"code": 500, "message": "m"}, {"message": "m"}, {"code": "x"}])
def test_an_error_is_the_engines(error: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as e:
        made(chunk({"content": "a"}), f"data: {json.dumps({'error': error})}\n\n")
    assert e.value.status == 500
