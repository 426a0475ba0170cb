"""What each kind of engine says, byte by byte, of one and the same reply.

Ollama's lines and mlx-lm's, vLLM's, SGLang's events are as those engines were seen to write them;
LM Studio's follow its documentation. Each says: thoughts, an answer, or a call of a tool.
"""

import json
from typing import Any

THOUGHT, SAID = "The user greets me.", "Hi there!"
ARGUMENTS = {"city": "Köln"}
PROMPT_TOKENS, MADE_TOKENS = 14, 19
USAGE = {"prompt_tokens": 14, "completion_tokens": 19, "total_tokens": 33}


def lines(*objects: Any) -> bytes:
    return b"".join(json.dumps(o, ensure_ascii=False).encode() + b"\n" for o in objects)


def events(*objects: Any, done: bool = True) -> bytes:
    made = b"".join(
        o.encode() if isinstance(o, str) else b"data: " + json.dumps(o).encode() + b"\n\n"
        for o in objects
    )
    return made + (b"data: [DONE]\n\n" if done else b"")


def chunk(
    delta: dict[str, Any], finish: str | None = None, model: str = "theirs", **more: Any
) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish} | more
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 5,
        "model": model,
        "choices": [choice],
    }


def usage(kind: str = "chat.completion.chunk") -> dict[str, Any]:
    frame = {"id": "chatcmpl-1", "object": kind, "created": 5, "model": "theirs"}
    return frame | {"choices": [], "usage": USAGE}


CALL = {"name": "get_weather", "arguments": json.dumps(ARGUMENTS, ensure_ascii=False)}
TAGGED_CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Köln"}}\n</tool_call>'


def streamed_call(id: str) -> list[dict[str, Any]]:
    """Name first, then the arguments in pieces."""
    head = {"index": 0, "id": id, "type": "function", "function": {"name": CALL["name"]}}
    tail = [
        {"index": 0, "function": {"arguments": CALL["arguments"][:5]}},
        {"index": 0, "function": {"arguments": CALL["arguments"][5:]}},
    ]
    return [chunk({"tool_calls": [part]}) for part in (head, *tail)]


def ollama(message: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "model": "qwharf/pocket",
        "created_at": "2026-11-23T15:17:54.6Z",
        "message": {"role": "assistant"} | message,
        "done": False,
    } | more


OLLAMA_END = {"done": True, "prompt_eval_count": 14, "eval_count": 19, "load_duration": 818283}


def raw(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "qwharf/pocket", "created_at": "2026", "response": text, "done": False} | more


ANSWERS: dict[str, bytes] = {
    "llama.cpp": events(
        chunk({"role": "assistant", "content": None}, model="pocket"),
        chunk({"reasoning_content": "The user "}, model="pocket"),
        chunk({"reasoning_content": "greets me."}, model="pocket"),
        chunk({"content": "Hi "}, model="pocket"),
        chunk({"content": "there!"}, model="pocket"),
        chunk({}, "stop", model="pocket"),
        usage() | {"model": "pocket"},
    ),
    "vllm": events(
        chunk({"role": "assistant", "content": ""}),
        ": keep-alive\n\n",
        chunk({"reasoning": "\nThe user "}),
        chunk({"reasoning": "greets me.\n"}),
        chunk({"content": "\n\n"}),
        chunk({"content": "Hi there!"}),
        chunk({"content": ""}, "stop", stop_reason=None),
        usage(),
    ),
    "sglang": events(
        chunk({"role": "assistant", "content": "", "reasoning_content": None}),
        chunk({"role": None, "content": None, "reasoning_content": "The user greets me.\n"}),
        chunk({"role": None, "content": "\n\nHi there!", "reasoning_content": None}),
        chunk({"role": None, "content": None}, "stop", matched_stop=151645),
        usage(),
    ),
    "mlx": events(
        ": keepalive 0/14\n\n",
        ": keepalive 14/14\n\n",
        chunk({"role": "assistant", "reasoning": "\nThe user greets me.\n"}),
        chunk({"role": "assistant", "content": "\n\nHi"}),
        chunk({"role": "assistant", "content": " there!"}),
        chunk({"role": "assistant"}, "stop"),
        usage("chat.completion"),
    ),
    "ollama": lines(
        raw("<think>"),
        raw("\n"),
        raw("The user greets me."),
        raw("\n"),
        raw("</think>"),
        raw("\n\n"),
        raw("Hi there!"),
        raw("", done_reason="stop", **OLLAMA_END),
    ),
    "lmstudio": events(
        chunk({"role": "assistant", "content": "<thi"}),
        chunk({"content": "nk>\nThe user greets me.\n</th"}),
        chunk({"content": "ink>\n\nHi there!"}),
        chunk({}, "stop"),
        usage(),
    ),
    "openai": events(
        chunk({"role": "assistant", "content": ""}),
        chunk({"thinking": "The user greets me."}),
        chunk({"content": "Hi there!"}),
        chunk({}, "stop"),
        usage(),
    ),
}
"""A thought and an answer, from each kind."""

CALLS: dict[str, bytes] = {
    "llama.cpp": events(
        chunk({"role": "assistant", "content": None}, model="pocket"),
        *(e | {"model": "pocket"} for e in streamed_call("call_1")),
        chunk({}, "tool_calls", model="pocket"),
        usage() | {"model": "pocket"},
    ),
    "vllm": events(
        chunk({"role": "assistant", "content": ""}),
        *streamed_call("chatcmpl-tool-1"),
        chunk({"content": ""}, "tool_calls"),
        usage(),
    ),
    "sglang": events(
        chunk({"role": "assistant", "content": "", "reasoning_content": None}),
        *streamed_call("call_1"),
        chunk({"content": None}, "tool_calls"),
        usage(),
    ),
    "mlx": events(
        chunk({"role": "assistant", "content": TAGGED_CALL[:14]}),
        chunk({"role": "assistant", "content": TAGGED_CALL[14:]}),
        chunk({"role": "assistant"}, "stop"),
        usage("chat.completion"),
    ),
    "ollama": lines(
        *(raw(TAGGED_CALL[i : i + 7]) for i in range(0, len(TAGGED_CALL), 7)),
        raw("", done_reason="stop", **OLLAMA_END),
    ),
    "lmstudio": events(
        chunk({"role": "assistant"}),
        *streamed_call("365174485"),
        chunk({}, "tool_calls"),
        usage(),
    ),
    "openai": events(
        chunk({"role": "assistant", "content": TAGGED_CALL}),
        chunk({}, "stop"),
        usage(),
    ),
}
"""A call of ``get_weather``."""

TOO_LONG: dict[str, bytes] = {
    "llama.cpp": b'{"error":{"code":400,"message":"request (6010 tokens) exceeds the available '
    b'context size (256 tokens), try increasing it","type":"exceed_context_size_error"}}',
    "vllm": b'{"error":{"message":"This model\'s maximum context length is 4096 tokens. However, '
    b"you requested 64 output tokens and your prompt contains at least 4033 input tokens, for a "
    b'total of at least 4097 tokens.","type":"BadRequestError","param":"input_tokens",'
    b'"code":400}}',
    "sglang": b'{"object":"error","message":"The input (5114 tokens) is longer than the model\'s '
    b'context length (4096 tokens).","type":"BadRequestError","param":null,"code":400}',
    "mlx": b'{"error": "the prompt has 5114 tokens, the context 4096"}',
    "ollama": json.dumps(
        {
            "error": '{"error":{"code":400,"message":"request (6010 tokens) exceeds the available '
            'context size (256 tokens), try increasing it","type":"exceed_context_size_error",'
            '"n_prompt_tokens":6010,"n_ctx":256}}'
        }
    ).encode(),
    "lmstudio": b'{"error":"The number of tokens to keep from the initial prompt is greater than '
    b'the context length. Try to load the model with a larger context length"}',
    "openai": b'{"error":{"message":"This model\'s maximum context length is 8192 tokens.",'
    b'"type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}',
}
"""Refusals of a prompt beyond the context."""

BROKEN: dict[str, bytes] = {
    "vllm": events(
        chunk({"role": "assistant", "content": "Hi"}),
        {"error": {"message": "EngineCore died", "type": "InternalServerError", "code": 500}},
        done=True,
    ),
    "sglang": events(
        chunk({"role": "assistant", "content": "Hi"}),
        {"object": "error", "message": "EngineCore died", "type": "InternalError", "code": 500},
        done=True,
    ),
    "ollama": lines(raw("Hi"), {"error": "EngineCore died"}),
}
"""Streams that report an error of the engine."""
