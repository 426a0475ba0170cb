"""How checks speak to the endpoint: OpenAI's chat route over HTTP, with a deadline on each call."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from qwharf.errors import NetworkError, UsageError
from qwharf.verify import replies, sse
from qwharf.verify.contract import Broken, Unclear
from qwharf.verify.line import Answer, Line, NoConnection, Refused, TooLate, as_json
from qwharf.verify.pace import Pace
from qwharf.verify.replies import Reply
from qwharf.verify.target import Message, Reference, Target, Tool

UNSUPPORTED = "unsupported_by_engine"
SEEN_CHARACTERS = 8
"""Enough to tell a tag from text."""


@dataclass(frozen=True, slots=True)
class Opening:
    """How a reply begins: where its first visible characters stood, and what they were."""

    kind: Literal["reasoning", "content", "tool call", "nothing"]
    text: str = ""


class Probe:
    """One target and the connection to it; a context manager."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.pace = Pace(target.deadline_seconds)
        self._line = Line(target.base_url, target.api_key)
        self._base = target.base_url.rstrip("/")
        self._served: str | None = target.served_name

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()

    # ------------------------------------------------------------------------------ the target

    @property
    def served_name(self) -> str:
        """The model that requests ask for; settled by :meth:`settle`."""
        if self._served is None:
            raise Broken("no model to ask for: the endpoint lists none")
        return self._served

    @property
    def label(self) -> str:
        """What to call the target in a report."""
        return self._served or self._base

    def settle(self) -> None:
        """Make the first contact and find the model's name if none was given.

        Raises:
            NetworkError: nothing answers there.
            UsageError: several models are served and none was named.
        """
        try:
            answer = self.get("/models")
        except NoConnection as e:
            raise NetworkError(
                self._base,
                found=e.reason,
                expected="an OpenAI-compatible endpoint",
                hint="is it running? For deployments of qwharf see `qwharf ps`",
            ) from e
        except Broken:
            return  # it hangs: the checks will say so
        if self._served is None:
            try:
                names = [str(m["id"]) for m in answer.body["data"]]
            except (Broken, KeyError, TypeError):
                return  # `models-listed` will say so
            if len(names) > 1:
                raise UsageError(
                    "--model",
                    found=f"several models at {self._base}: {', '.join(names)}",
                    expected="the name of one",
                    hint=f"qwharf verify {self._base} --model {names[0]}",
                )
            self._served = names[0] if names else None

    @property
    def reference(self) -> Reference:
        """The checkpoint's own template and tokenizer; checks that use it declare the need."""
        if self.target.reference is None:
            raise Broken("no reference given")
        return self.target.reference

    @property
    def off(self) -> bool | None:
        """The thinking switch for requests that need no thinking: off, where there is one."""
        return False if self.target.thinking == "hybrid" else None

    def expected_tokens(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] | None = None,
        thinking: bool | None = None,
    ) -> int:
        """Token count of our own rendering of a request."""
        variables = {} if thinking is None else {"enable_thinking": thinking}
        return len(self.reference.tokens(messages, tools, **variables))

    # -------------------------------------------------------------------------------- chatting

    def body(
        self,
        messages: str | Sequence[Message],
        *,
        thinking: bool | None = None,
        tools: Sequence[Tool] | None = None,
        max_tokens: int = 64,
        room: bool = True,
        **fields: Any,
    ) -> dict[str, Any]:
        """A request body; a bare string is one user message.

        A model that always thinks is given room for it on top of ``max_tokens``, unless ``room``
        is false. ``temperature`` is 0 unless given; ``temperature=None`` leaves it out.
        """
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        if room and self.target.thinking == "thinking":
            max_tokens += 1536
        made: dict[str, Any] = {
            "model": self.served_name,
            "messages": list(messages),
            "max_tokens": max_tokens,
            "temperature": 0,
        }
        if thinking is not None:
            made["chat_template_kwargs"] = {"enable_thinking": thinking}
        if tools is not None:
            made["tools"] = list(tools)
        made |= fields
        return {k: v for k, v in made.items() if v is not None}

    def chat(
        self,
        messages: str | Sequence[Message],
        *,
        stream: bool = False,
        prompt_tokens: int = 0,
        **wishes: Any,
    ) -> Reply:
        """One request, whole or streamed; arguments as of :meth:`body`.

        Raises:
            Refused: an error status.
            Broken: no answer within the deadline, or one that has not OpenAI's shape.
        """
        body = self.body(messages, **wishes)
        return self.send(body, stream=stream, prompt_tokens=prompt_tokens)

    def send(self, body: dict[str, Any], *, stream: bool = False, prompt_tokens: int = 0) -> Reply:
        """A request whose body is made already; raises as :meth:`chat`.

        An endpoint that turns out to be slow, not stuck, gets a second chance in its own time.
        """
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        seconds = self.pace.deadline(_limit(body), prompt_tokens)
        try:
            return self._exchange(body, seconds)
        except TooLate:
            if not self._is_slow(body, seconds, prompt_tokens):
                raise
        return self._exchange(body, self.pace.deadline(_limit(body), prompt_tokens))

    def _exchange(self, body: dict[str, Any], seconds: float) -> Reply:
        start = time.monotonic()
        if body.get("stream"):
            events: list[dict[str, Any]] = []
            done = False
            for data in self._events(body, seconds):
                if data == "[DONE]":
                    done = True
                else:
                    events.append(sse.parse(data))
            reply = replies.streamed(events, done=done)
        else:
            answer = self.post("/chat/completions", body, seconds=seconds)
            if answer.status != 200:
                raise _refused(answer)
            reply = replies.whole(answer.body)
        self.pace.answered(reply, time.monotonic() - start)
        return reply

    def _is_slow(self, body: dict[str, Any], seconds: float, prompt_tokens: int) -> bool:
        """Whether ``seconds`` were too few for ``body``, by the pace of some tokens asked now."""
        if self.pace.given_up:
            return False
        few = self.body("Count from 1 to 9.", thinking=self.off, max_tokens=8, room=False)
        try:
            self._exchange(few, self.pace.deadline(8))
        except Broken:
            return False
        return self.pace.expected(_limit(body), prompt_tokens) > seconds

    def opening(self, messages: str | Sequence[Message], **wishes: Any) -> Opening:
        """Stream until the first few visible characters, then hang up: cheap, whatever follows."""
        body = self.body(messages, **wishes) | {"stream": True}
        events: list[dict[str, Any]] = []
        for data in self._events(body, self.pace.deadline(_limit(body))):
            if data == "[DONE]":
                break
            events.append(sse.parse(data))
            begun = _opening(replies.streamed(events, done=False))
            if len(begun.text) >= SEEN_CHARACTERS or begun.kind == "tool call":
                return begun
        return _opening(replies.streamed(events, done=False))

    def watch(self, message: str, seconds: float, **wishes: Any) -> int | None:
        """Send a request and watch it for ``seconds``: refused, finished, or neither?

        Returns:
            The prompt tokens it reports if it finished, ``None`` if it still worked when we left.

        Raises:
            Refused: it was refused in that time.
        """
        body = self.body(message, **wishes) | {
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        events: list[dict[str, Any]] = []
        with suppress(TooLate):
            for data in self._stream(body, seconds):
                if data != "[DONE]":
                    events.append(sse.parse(data))
        usage = replies.streamed(events, done=True).usage
        return usage.prompt_tokens if usage else None

    # ------------------------------------------------------------------------------ raw access

    def get(self, path: str) -> Answer:
        """GET below the base URL."""
        return self._call("GET", self._base + path)

    def post(self, path: str, body: Any, *, seconds: float | None = None) -> Answer:
        """POST below the base URL; bytes are sent as they are, all else as JSON."""
        content = body if isinstance(body, bytes) else as_json(body)
        return self._call("POST", self._base + path, content, seconds=seconds)

    def applied(self) -> dict[str, Any]:
        """What the engine applied to its latest request, as llama-server's ``/slots`` tells.

        Raises:
            Unclear: the endpoint does not tell.
        """
        if not self.target.probe_url or self.target.probe != "llama.cpp":
            raise Unclear("the endpoint does not show what sampling it applies")
        answer = self._ask("GET", "/slots")
        if answer.status in (404, 405, 501):
            raise Unclear("the endpoint does not show what sampling it applies")
        if answer.status != 200:
            raise Refused(answer)
        slots = [s for s in answer.body if s.get("params")]
        if not slots:
            raise Broken("no slot tells what it did")
        return dict(max(slots, key=lambda s: int(s.get("id_task", -1)))["params"])

    def ask_probe(self, path: str, body: Any) -> Any:
        """POST to the probe routes beside the endpoint.

        Raises:
            Refused: an error status.
        """
        answer = self._ask("POST", path, as_json(body))
        if answer.status != 200:
            raise Refused(answer)
        return answer.body

    def _ask(self, method: str, path: str, content: bytes | None = None) -> Answer:
        url = f"{(self.target.probe_url or '').rstrip('/')}{path}"
        return self._call(method, url, content, headers=dict(self.target.probe_headers))

    def _call(
        self,
        method: str,
        url: str,
        content: bytes | None = None,
        *,
        seconds: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        try:
            return self._line.call(method, url, content, seconds or self.pace.deadline(0), headers)
        except TooLate:
            self.pace.missed()
            raise

    def _events(self, body: dict[str, Any], seconds: float) -> Iterator[str]:
        try:
            yield from self._stream(body, seconds)
        except TooLate:
            self.pace.missed()
            raise

    def _stream(self, body: dict[str, Any], seconds: float) -> Iterator[str]:
        try:
            yield from self._line.stream(f"{self._base}/chat/completions", as_json(body), seconds)
        except Refused as e:
            raise _refused(e.answer) from e


def _opening(reply: Reply) -> Opening:
    if reply.reasoning.strip():
        return Opening("reasoning", reply.reasoning.strip())
    if reply.content.strip():
        return Opening("content", reply.content.strip())
    return Opening("tool call") if reply.tool_calls else Opening("nothing")


def _refused(answer: Answer) -> Broken | Unclear:
    """An error; but qwharf's gateway says no where an engine has no such thing, and that is a fact
    about the engine, known and told, not a promise broken.
    """
    try:
        error = answer.body["error"]
        if error["code"] == UNSUPPORTED:
            return Unclear(str(error["message"]))
    except (Broken, KeyError, TypeError):
        pass
    return Refused(answer)


def _limit(body: dict[str, Any]) -> int:
    return int(body.get("max_tokens") or body.get("max_completion_tokens") or 64)
