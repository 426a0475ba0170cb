"""A real llama.cpp behind the double: Ollama's requests in its own, and its answers in Ollama's.

Sampling, thinking, tools and overflow are as the recordings show them; ``test_ollama_double.py``
holds it against them.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
from ollama_double_store import Answer

from qwharf.daemon.starting import free_port

DEFAULTS: dict[str, Any] = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.0}
"""What Ollama samples with where nobody says otherwise."""
SAMPLING = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repeat_penalty": "repeat_penalty",
    "seed": "seed",
    "stop": "stop",
}


SPAWNER = ThreadPoolExecutor(1)
"""Starts the children: Linux ends them with the *thread* that did, and requests have brief ones."""


class Overflow(Exception):
    """The prompt is longer than the context; the text is llama-server's JSON."""


class Brain:
    """One llama.cpp child."""

    def __init__(self, weights: Path, context: int) -> None:
        self.context = context
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        argv = [sys.executable, "-m", "qwharf.platforms.llama_server"]
        argv += ["--model", str(weights), "--alias", "model", "--host", "127.0.0.1"]
        argv += ["--port", str(port), "--ctx-size", str(context), "--parallel", "1"]
        argv += ["--threads", "1", "--load-mode", "none", "--die-with-parent"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.child = SPAWNER.submit(subprocess.Popen, argv, stdin=subprocess.PIPE, **quiet).result()
        self.http = httpx2.Client(base_url=self.url, timeout=120, trust_env=False)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                if self.http.get("/health").status_code == 200:
                    return
            except httpx2.HTTPError:
                pass
            if self.child.poll() is not None:
                break
            time.sleep(0.02)
        self.stop()
        raise RuntimeError("the double's engine did not start")

    def stop(self) -> None:
        self.http.close()
        self.child.kill()
        self.child.wait()
        assert self.child.stdin is not None
        self.child.stdin.close()

    # ---------------------------------------------------------------------------------- asking

    def answer(
        self, path: str, body: dict[str, Any], options: Mapping[str, Any], said: dict[str, Any]
    ) -> Any:
        """A dict, or lines where it is streamed (Ollama's default on ``/api``)."""
        if path == "/v1/chat/completions":
            return self._openai(body, options)
        events = self._chat(body, options) if path == "/api/chat" else self._generate(body, options)
        try:
            first = next(events)
        except Overflow as e:
            raise Answer(400, str(e)) from None

        def lines() -> Iterator[dict[str, Any]]:
            try:
                for event in itertools.chain([first], events):
                    yield said | event
            except (httpx2.HTTPError, ValueError):
                error = "an error was encountered while running the model: unexpected EOF"
                raise Answer(500, error) from None

        if body.get("stream", True):
            return lines()
        return _whole(list(lines()))

    def _chat(self, body: dict[str, Any], options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        messages = [_message(m) for m in body["messages"]]
        strict = body.get("truncate") is False or body.get("shift") is False
        while True:
            try:
                yield from self._chat_once(body, messages, options)
                return
            except Overflow:
                rest = [i for i, m in enumerate(messages) if m["role"] != "system"]
                if strict or len(rest) < 2:
                    raise
                del messages[rest[0]]  # in silence, as Ollama does

    def _chat_once(
        self, body: dict[str, Any], messages: list[dict[str, Any]], options: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        think = body.get("think")
        asked: dict[str, Any] = {
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            "chat_template_kwargs": {"enable_thinking": think is not False},
            **_sampling(options),
        }
        if body.get("tools"):
            asked["tools"] = body["tools"]
        wanted = body.get("format")
        if wanted == "json":
            asked["response_format"] = {"type": "json_object"}
        elif wanted:
            schema = {"name": "answer", "schema": wanted}
            asked["response_format"] = {"type": "json_schema", "json_schema": schema}
        if body.get("logprobs"):
            asked |= {"logprobs": True, "top_logprobs": body.get("top_logprobs", 0)}
        calls: dict[int, dict[str, Any]] = {}
        counts: dict[str, Any] = {}
        reason = "stop"
        for event in self._sse("/v1/chat/completions", asked):
            counts = event.get("usage") or counts
            for choice in event.get("choices", ()):
                delta = choice["delta"]
                reason = "length" if choice.get("finish_reason") == "length" else reason
                thought, text = delta.get("reasoning_content"), delta.get("content")
                if thought or text:
                    message = {"role": "assistant", "content": text or ""}
                    message |= {"thinking": thought} if thought else {}
                    tokens = (choice.get("logprobs") or {}).get("content")
                    yield {"message": message, "done": False, **_logprobs(tokens)}
                for call in delta.get("tool_calls") or ():
                    kept = calls.setdefault(call["index"], {"name": "", "arguments": ""})
                    function = call.get("function") or {}
                    kept["name"] += function.get("name") or ""
                    kept["arguments"] += function.get("arguments") or ""
        for index, call in sorted(calls.items()):  # each whole, in one line
            function = {"index": index, "name": call["name"]}
            function["arguments"] = json.loads(call["arguments"] or "{}")
            told = [{"id": f"call{index}", "function": function}]
            message = {"role": "assistant", "content": "", "tool_calls": told}
            yield {"message": message, "done": False}
        empty = {"role": "assistant", "content": ""}
        yield {"message": empty, "done": True, "done_reason": reason, **_counts(counts)}

    def _generate(
        self, body: dict[str, Any], options: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Raw: the prompt as it is. Else rendered; the tags of a thought stay in the answer."""
        prompt = body["prompt"]
        if not body.get("raw"):
            messages = [{"role": "user", "content": prompt}]
            if body.get("system"):
                messages.insert(0, {"role": "system", "content": body["system"]})
            switch = {"enable_thinking": body.get("think") is not False}
            asked = {"messages": messages, "chat_template_kwargs": switch}
            prompt = self.http.post("/apply-template", json=asked).json()["prompt"]
        request = {
            **_sampling(options),
            "n_predict": options.get("num_predict", -1),
            "prompt": prompt,
            "stream": True,
        }
        request.pop("max_tokens", None)
        if body.get("logprobs"):
            request["n_probs"] = max(1, body.get("top_logprobs", 0))
        if isinstance(body.get("format"), dict):
            request["json_schema"] = body["format"]
        try:
            yield from self._complete(request)
        except Overflow:
            if body.get("truncate") is False or body.get("shift") is False:
                raise
            special = {"content": prompt, "parse_special": True}
            tokens = self.http.post("/tokenize", json=special).json()["tokens"]
            request["prompt"] = tokens[:4] + tokens[-(self.context // 2 - 2) :]
            yield from self._complete(request)

    def _complete(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        last: dict[str, Any] = {}
        for last in self._sse("/completion", request):
            if last.get("content"):
                tokens = last.get("completion_probabilities")
                yield {"response": last["content"], "done": False, **_logprobs(tokens)}
        usage = {
            "prompt_tokens": last.get("tokens_evaluated", 0),
            "completion_tokens": last.get("tokens_predicted", 0),
        }
        reason = "length" if last.get("stop_type") == "limit" else "stop"
        yield {"response": "", "done": True, "done_reason": reason, **_counts(usage)}

    def _openai(self, body: dict[str, Any], options: Mapping[str, Any]) -> Any:
        """The layer's temperature and top_p are overridden; other switches than
        ``reasoning_effort`` are ignored, and so are top_k and min_p of the request.
        """
        effort = body.get("reasoning_effort") or (body.get("reasoning") or {}).get("effort")
        sampling = _sampling({**options, "temperature": 1.0, "top_p": 1.0})
        for key in ("temperature", "top_p", "seed", "stop", "presence_penalty", "max_tokens"):
            if body.get(key) is not None:
                sampling[key] = body[key]
        asked = {
            "messages": body["messages"],
            "chat_template_kwargs": {"enable_thinking": effort != "none"},
            **sampling,
        }
        for key in ("tools", "response_format", "stream", "stream_options", "logprobs"):
            if body.get(key) is not None:
                asked[key] = body[key]
        if body.get("stream"):
            return self._openai_lines(body["model"], asked)
        answer = self.http.post("/v1/chat/completions", json=asked)
        _refuse(answer.status_code, answer.content)
        whole = dict(answer.json())
        message = whole["choices"][0]["message"]
        if "reasoning_content" in message:
            message["reasoning"] = message.pop("reasoning_content")
        return whole | {"model": body["model"], "system_fingerprint": "fp_ollama"}

    def _openai_lines(self, model: str, asked: dict[str, Any]) -> Iterator[Any]:
        for event in self._sse("/v1/chat/completions", asked):
            for choice in event.get("choices", ()):
                delta = choice["delta"]
                if "reasoning_content" in delta:
                    delta["reasoning"] = delta.pop("reasoning_content")
            yield event | {"model": model, "system_fingerprint": "fp_ollama"}
        yield "[DONE]"

    def _sse(self, path: str, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        with self.http.stream("POST", path, json=asked) as response:
            if response.status_code != 200:
                _refuse(response.status_code, response.read())
            for line in response.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    yield json.loads(line.removeprefix("data: "))


def _refuse(status: int, body: bytes) -> None:
    if status == 200:
        return
    text = body.decode("utf-8", "replace")
    if "exceed_context_size_error" in text or "available context size" in text:
        raise Overflow(text)
    raise Answer(status, text)


def _sampling(options: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**DEFAULTS, **options}
    found = {theirs: merged[ours] for ours, theirs in SAMPLING.items() if ours in merged}
    if merged.get("num_predict", -1) >= 0:
        found["max_tokens"] = merged["num_predict"]
    return found


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """Thoughts of earlier turns are dropped; arguments become text."""
    if not isinstance(message.get("content", ""), str):
        raise Answer(
            400,
            "json: cannot unmarshal array into Go struct field ChatRequest.messages.content of "
            "type string",
        )
    kept = {"role": message["role"], "content": message.get("content", "")}
    if message.get("tool_calls"):
        kept["tool_calls"] = [
            {
                "type": "function",
                "id": c.get("id") or f"call{i}",
                "function": {
                    "name": c["function"]["name"],
                    "arguments": json.dumps(c["function"]["arguments"]),
                },
            }
            for i, c in enumerate(message["tool_calls"])
        ]
    if message["role"] == "tool":
        kept["tool_call_id"] = message.get("tool_call_id") or "call0"
    return kept


def _logprobs(tokens: Any) -> dict[str, Any]:
    """Of each token: itself, its log probability and bytes, and the likeliest in its place."""
    if not tokens:
        return {}
    keys = ("token", "logprob", "bytes")

    def told(token: Mapping[str, Any]) -> dict[str, Any]:
        return {k: token[k] for k in keys}

    return {
        "logprobs": [
            told(t) | {"top_logprobs": [told(x) for x in t.get("top_logprobs", ())]} for t in tokens
        ]
    }


def _counts(usage: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "total_duration": 1,
        "load_duration": 1,
        "prompt_eval_count": usage.get("prompt_tokens", 0),
        "prompt_eval_duration": 1,
        "eval_count": usage.get("completion_tokens", 0),
        "eval_duration": 1,
    }


def _whole(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """A streamed answer in one piece."""
    last = dict(lines[-1])
    tokens = [t for x in lines for t in x.get("logprobs", ())]
    last |= {"logprobs": tokens} if tokens else {}
    if "message" not in last:
        return last | {"response": "".join(x["response"] for x in lines)}
    parts = [x["message"] for x in lines]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(p["content"] for p in parts),
    }
    thought = "".join(p.get("thinking", "") for p in parts)
    calls = [c for p in parts for c in p.get("tool_calls", ())]
    message |= {"thinking": thought} if thought else {}
    message |= {"tool_calls": calls} if calls else {}
    return last | {"message": message}
