"""A small OpenAI-compatible server that keeps the Qwen3 contract, unless one thing is sabotaged.

The template and the tokenizer are real; the model is a set of rules (``fake_brain``). Each name in
``sabotage`` breaks exactly one thing, the way engines in the field have been seen to break it.
"""

import itertools
import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import fake_brain as brain

from qwharf.types import Mode, Sampling, Thinking
from qwharf.verify import Reference
from qwharf.verify.target import as_template_input

NAME = "fake-qwen3"
CALL = re.compile(r"<tool_call>\n(.*?)\n</tool_call>\n?", re.S)
PRESETS: dict[Mode, Sampling] = {
    "thinking": Sampling(temperature=0.6, top_p=0.95, top_k=20),
    "non-thinking": Sampling(temperature=0.7, top_p=0.8, top_k=20),
}
ENGINE = Sampling(temperature=0.8, top_p=0.95, top_k=40, min_p=0.05)


class Refusal(Exception):
    """An HTTP error to answer with."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Endpoint:
    """The server; a context manager."""

    def __init__(
        self,
        reference: Reference,
        *sabotage: str,
        kind: Thinking = "hybrid",
        context: int = 2048,
    ) -> None:
        self.reference = reference
        self.sabotage = frozenset(sabotage)
        self.kind = kind
        self.context = context
        self.numbers = itertools.count(1)
        self.busy: list[dict[str, Any]] = []
        self.applied: dict[str, Any] = {}
        endpoint = self

        class Handler(_Handler):
            owner = endpoint

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.released = threading.Event()
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))

    def __enter__(self) -> "Endpoint":
        self.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def broken(self, name: str) -> bool:
        return name in self.sabotage

    # --------------------------------------------------------------------------------- routes

    def get(self, path: str) -> dict[str, Any] | list[Any]:
        if path == "/probe/slots" and not self.broken("no-slots"):
            old = {"id": 0, "id_task": 1, "params": {}}
            return [old, {"id": 1, "id_task": 7, "params": self.applied}, {"id": 2}]
        if path != "/v1/models":
            raise Refusal(404, "no such route")
        name = "other" if self.broken("not-listed") else NAME
        return {"object": "list", "data": [{"id": name, "object": "model"}]}

    def probe(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == "/probe/apply-template":
            return {"prompt": self.prompt(body)}
        if path == "/probe/tokenize":
            # Of a text as llama-server has it, of a conversation as vLLM and SGLang have it.
            text = body["content"] if "content" in body else self.prompt(body)
            ids = self.reference.tokenizer.encode(text)
            return {"tokens": [0, *ids] if self.broken("adds-bos") else ids}
        raise Refusal(404, "no such route")

    def prompt(self, body: dict[str, Any]) -> str:
        messages = self.messages(body)
        tools = [] if self.broken("drops-tools") else body.get("tools") or []
        text = self.reference.render(messages, tools, **self.variables(body))
        if self.broken("escapes-html"):
            text = text.replace("& ", "\\u0026 ")
        return text

    def messages(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        messages = [dict(m) for m in body["messages"]]
        for message in messages:
            if self.broken("parts-lost") and isinstance(message.get("content"), list):
                message["content"] = ""
            if self.broken("null-is-none") and message.get("content", "") is None:
                message["content"] = "None"
            if self.broken("drops-reasoning-history"):
                message.pop("reasoning_content", None)
            if self.broken("strips-soft-switches") and isinstance(message["content"], str):
                message["content"] = re.sub(r"\s*/(no_)?think", "", message["content"])
            if self.broken("drops-results") and message["role"] == "tool":
                message["content"] = ""
        return messages

    def variables(self, body: dict[str, Any]) -> dict[str, Any]:
        variables = dict(body.get("chat_template_kwargs") or {})
        if body.get("reasoning_effort") == "none" and not self.broken("ignores-effort"):
            variables["enable_thinking"] = False
        if self.broken("ignores-switch"):
            variables.pop("enable_thinking", None)
        return variables

    def thinks(self, body: dict[str, Any]) -> bool:
        if self.kind == "hybrid":
            return self.variables(body).get("enable_thinking") is not False
        return self.kind == "thinking" or self.broken("instruct-thinks")

    def adapted(self, body: dict[str, Any]) -> dict[str, Any]:
        preset = PRESETS["thinking" if self.thinks(body) else "non-thinking"]
        if self.broken("engine-defaults"):
            preset = ENGINE
        names = ("temperature", "top_p", "top_k", "min_p", "presence_penalty")
        made = {n: getattr(preset, n) for n in names} | body
        made["repeat_penalty"] = 1.1 if self.broken("penalizes") else 1.0
        if self.broken("always-samples"):
            made["temperature"] = max(made["temperature"], 0.5)
        for knob, neutral in (("top_k", 0), ("top_p", 1.0), ("min_p", 0.0)):
            if self.broken(f"ignores-{knob}"):
                made[knob] = neutral
        if self.broken("ignores-temperature"):
            made["temperature"] = 0
        if self.broken("ignores-seed"):
            made["seed"] = next(self.numbers)
        return made

    # ----------------------------------------------------------------------------------- chat

    def accept(self, raw: bytes) -> dict[str, Any]:
        """The request, checked; raises :class:`Refusal`."""
        try:
            body = json.loads(raw)
            good = isinstance(body["messages"], list)
        except (ValueError, KeyError):
            good = False
        if not good:
            raise Refusal(500 if self.broken("malformed-500") else 400, "not a chat request")
        if body["model"] != NAME and not self.broken("any-model"):
            raise Refusal(404, f"no model {body['model']}")
        off = (body.get("chat_template_kwargs") or {}).get("enable_thinking") is False
        for name in ("logprobs", "response_format"):
            if body.get(name) and self.broken(f"lacks-{name}"):
                raise Refusal(400, f"`{name}` cannot be had", "unsupported_by_engine")
        if self.kind == "thinking" and off and not self.broken("pretends-off"):
            raise Refusal(400, "this model always thinks")
        return body

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """Everything of a reply: its parts, ready to be sent whole or in pieces."""
        if self.broken("hangs"):
            self.released.wait(20)
        prompt_tokens = len(self.reference.tokenizer.encode(self.prompt(body)))
        limit = self.context // 2 if self.broken("small-context") else self.context
        if prompt_tokens > limit:
            if not self.broken("cuts-context"):
                unnamed = self.broken("unnamed-refusal")
                text = "bad request" if unnamed else f"exceeds the context of {limit} tokens"
                raise Refusal(400, text)
            prompt_tokens = limit
        if self.broken("cuts-early"):
            prompt_tokens = min(prompt_tokens, self.context // 2)
        asked = self.adapted(body)
        self.applied = asked
        tools = [] if self.broken("drops-tools") else asked.get("tools") or []
        if asked.get("tool_choice") == "none" and not self.broken("ignores-tool-choice"):
            tools = []
        messages = [as_template_input(m) for m in self.messages(body)]
        text = brain.generate(messages, tools, self.thinks(body), asked)
        if self.kind == "thinking" and self.broken("pretends-off"):
            text = text.rpartition("</think>\n\n")[2]
        text = self.formatted(text, asked)
        reply = self.cut(text, asked) | self.counts(prompt_tokens)
        reply["completion_tokens"] = len(self.reference.tokenizer.encode(reply.pop("text"))) + (
            reply["finish_reason"] != "length"
        )
        if self.broken("slow"):
            self.released.wait(0.03 * reply["completion_tokens"])
        return self.mixed(reply)

    def counts(self, prompt_tokens: int) -> dict[str, Any]:
        return {
            "prompt_tokens": prompt_tokens + 3 * self.broken("counts-off"),
            "id": f"chatcmpl-{next(self.numbers)}",
        }

    def formatted(self, text: str, body: dict[str, Any]) -> str:
        wanted = (body.get("response_format") or {}).get("json_schema")
        if wanted and not self.broken("ignores-schema"):
            head, sep, _ = text.rpartition("</think>\n\n")
            return head + sep + json.dumps(brain.instance(wanted["schema"]), ensure_ascii=False)
        if self.broken("shows-im-end"):
            return text + "<|im_end|>"
        return text + " and so on" * 300 if self.broken("runs-on") else text

    def cut(self, text: str, body: dict[str, Any]) -> dict[str, Any]:
        """Apply stop strings and the limit, then take the text apart."""
        finish = "stop"
        for piece in body.get("stop") or ():
            if piece in text and not self.broken("ignores-stop"):
                end = text.index(piece) + (len(piece) if self.broken("keeps-stop") else 0)
                text = text[:end]
        names = ["max_tokens", "max_completion_tokens"]
        names = [n for n in names if not self.broken(f"ignores-{n}")]
        limit = min((body[n] for n in names if n in body), default=4096)
        while len(self.reference.tokenizer.encode(text)) > limit:
            text, finish = text[: -max(1, len(text) // 60)], "length"
        parts = self.parts(text)
        if parts["calls"] and finish == "stop" and not self.broken("finish-stop"):
            finish = "tool_calls"
        return {**parts, "finish_reason": finish, "text": text}

    def parts(self, text: str) -> dict[str, Any]:
        """Reasoning, content and calls of a raw text."""
        reasoning, content = "", text
        if self.kind == "thinking" and "<think>" not in text and not self.broken("pretends-off"):
            text = content = "<think>\n" + text
        if text.startswith("<think>") and not self.broken("no-parser"):
            inner, _, content = text.removeprefix("<think>").partition("</think>")
            reasoning, content = inner.strip("\n"), content.lstrip("\n")
        if self.broken("all-reasoning"):
            reasoning, content = (reasoning + content, "")
        calls = []
        if not self.broken("raw-calls"):
            calls = [self.call(i, json.loads(c)) for i, c in enumerate(CALL.findall(content))]
            content = CALL.sub("", content)
        if self.broken("thinking-swallows-calls") and reasoning and calls:
            calls = []
        if self.broken("first-call-only"):
            calls = calls[:1]
        return {"reasoning": reasoning, "content": content, "calls": calls}

    def call(self, index: int, made: dict[str, Any]) -> dict[str, Any]:
        arguments = json.dumps(made["arguments"], ensure_ascii=False)
        if self.broken("empty-arguments") and arguments == "{}":
            arguments = ""
        if self.broken("numbers-as-text"):
            arguments = re.sub(r": (\d+)", r': "\1"', arguments)
        if self.broken("stops-at-first-brace"):
            arguments = arguments.partition("}")[0] + "}"
        id = "call_1" if self.broken("same-ids") else f"call_{next(self.numbers)}_{index}"
        function = {"name": made["name"], "arguments": arguments}
        if self.broken("arguments-object"):
            function["arguments"] = made["arguments"]
        return {"id": "" if self.broken("no-ids") else id, "type": "function", "function": function}

    def mixed(self, reply: dict[str, Any]) -> dict[str, Any]:
        """With two at once, hand each the other's content: only when sabotaged."""
        if not self.broken("mixes"):
            return reply
        self.busy.append(reply)
        time.sleep(0.1)
        other = next((r for r in self.busy if r is not reply), reply)
        mixed = {**reply, "content": other["content"]}
        time.sleep(0.1)
        self.busy.remove(reply)
        return mixed

    # ---------------------------------------------------------------------------------- shapes

    @property
    def field(self) -> str:
        return "reasoning" if self.broken("field-reasoning") else "reasoning_content"

    def usage(self, reply: dict[str, Any]) -> dict[str, int]:
        prompt, made = reply["prompt_tokens"], reply["completion_tokens"]
        return {
            "prompt_tokens": prompt,
            "completion_tokens": made,
            "total_tokens": made if self.broken("total-off") else prompt + made,
        }

    def logprobs(self, reply: dict[str, Any]) -> dict[str, Any]:
        chosen = 0.5 if self.broken("logprobs-positive") else -0.2
        if self.broken("logprobs-not-best"):
            chosen = -5.0
        pieces = re.findall(r"\S+\s*", reply["reasoning"] + reply["content"])
        top = [{"token": p, "logprob": v} for p, v in (("a", -0.2), ("b", -2.5))]
        entries = [{"token": p, "logprob": chosen, "top_logprobs": top} for p in pieces]
        return {"content": entries}

    def whole(self, body: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": reply["content"]}
        if reply["reasoning"]:
            message[self.field] = reply["reasoning"]
        if reply["calls"]:
            message["tool_calls"] = reply["calls"]
        choice: dict[str, Any] = {
            "index": 0,
            "message": message,
            "finish_reason": reply["finish_reason"],
        }
        if body.get("logprobs") and not self.broken("no-logprobs"):
            choice["logprobs"] = self.logprobs(reply)
        made = {"id": reply["id"], "object": "chat.completion", "choices": [choice]}
        return made | {"model": NAME, "usage": self.usage(reply)}

    def stream(self, body: dict[str, Any], reply: dict[str, Any]) -> Iterator[bytes]:
        for number, delta in enumerate(self.deltas(reply)):
            if self.broken("no-role") and number == 0:
                continue
            yield self.event(reply, number, [{"index": 0, "delta": delta}])
        end = {"index": 0, "delta": {}, "finish_reason": reply["finish_reason"]}
        yield self.event(reply, 0, [end])
        if (body.get("stream_options") or {}).get("include_usage") and not self.broken("no-usage"):
            yield self.event(reply, 0, [], usage=self.usage(reply))
        if not self.broken("no-done"):
            yield b"data: [DONE]\n\n"

    def event(self, reply: dict[str, Any], number: int, choices: list[Any], **more: Any) -> bytes:
        id = f"{reply['id']}-{number}" if self.broken("ids-change") else reply["id"]
        made = {"id": id, "object": "chat.completion.chunk", "choices": choices, **more}
        data = f"data: {json.dumps(made, ensure_ascii=False)}\n\n".encode()
        if self.broken("raw-bytes"):
            data = data.replace("ü".encode(), b"\xc3").replace("你".encode(), b"\xe4\xbd")
        return data

    def deltas(self, reply: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield {"role": "assistant", "content": None}
        for piece in _pieces(reply["reasoning"], 6):
            yield {self.field: piece}
        content = reply["content"]
        if self.broken("stream-drops-piece"):
            content = content[:3] + content[6:]
        if self.broken("replacement-characters"):
            content = re.sub(r"[^\x00-\x7f]", "\ufffd", content)
        for piece in _pieces(content, 4):
            yield {"content": piece}
        for index, call in enumerate(reply["calls"]):
            yield from self.call_deltas(index, call)

    def call_deltas(self, index: int, call: dict[str, Any]) -> Iterator[dict[str, Any]]:
        place = {} if self.broken("no-index") else {"index": index}
        function = call["function"]
        head = {"name": function["name"], "arguments": ""}
        yield {"tool_calls": [{**call, **place, "function": head}]}
        pieces = list(_pieces(str(function["arguments"]), 5))
        if self.broken("stream-loses-arguments"):
            pieces = pieces[:-1]
        for piece in pieces:
            yield {"tool_calls": [{**place, "function": {"arguments": piece}}]}


def _pieces(text: str, size: int) -> Iterator[str]:
    return (text[i : i + size] for i in range(0, len(text), size))


class _Handler(BaseHTTPRequestHandler):
    owner: Endpoint
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Tests are quiet."""

    def do_GET(self) -> None:
        self._guarded(lambda: self._json(200, self.owner.get(self.path)))

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/probe/"):
            self._guarded(lambda: self._json(200, self.owner.probe(self.path, json.loads(raw))))
        else:
            self._guarded(lambda: self._chat(raw))

    def _chat(self, raw: bytes) -> None:
        body = self.owner.accept(raw)
        reply = self.owner.complete(body)
        if not body.get("stream"):
            self._json(200, self.owner.whole(body, reply))
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        while self.owner.broken("drips") and not self.owner.released.wait(0.02):
            self.wfile.write(b": still there\n\n")
        for event in self.owner.stream(body, reply):
            self.wfile.write(event)
        self.close_connection = True

    def _guarded(self, act: Any) -> None:
        try:
            act()
        except Refusal as e:
            error = {"message": str(e), "type": "invalid_request_error", "code": e.code}
            self._json(e.status, {"error": error})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the probe hung up, as it may

    def _json(self, status: int, body: Any) -> None:
        data = json.dumps(body, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
