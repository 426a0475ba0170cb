"""How checks speak to the endpoint: OpenAI's chat route over HTTP, with a deadline on each call."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from qwharf.errors import NetworkError, UsageError
from qwharf.verify import replies, sse
from qwharf.verify.contract import Broken, Unclear
from qwharf.verify.pace import Pace
from qwharf.verify.replies import Reply
from qwharf.verify.target import Message, Reference, Target, Tool

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
MAX_BODY_BYTES = 64 * 2**20
SEEN_CHARACTERS = 8
"""Enough to tell a tag from text."""
_Option = TypeVar("_Option")


@dataclass(frozen=True, slots=True)
class Answer:
    """A raw HTTP answer, for checks of errors and lists."""

    status: int
    text: str

    @property
    def body(self) -> Any:
        """The JSON of the answer.

        Raises:
            Broken: it is not JSON.
        """
        try:
            return json.loads(self.text)
        except ValueError as e:
            raise Broken(f"HTTP {self.status} without JSON: {replies.shown(self.text)}") from e

    def error_message(self) -> str:
        """``error.message`` of OpenAI's error shape.

        Raises:
            Broken: the body is not of that shape.
        """
        body = self.body
        error = body.get("error") if isinstance(body, dict) else None
        message = error.get("message") if isinstance(error, dict) else None
        if not isinstance(message, str) or not message:
            raise Broken(
                f"HTTP {self.status} without `error.message`: {replies.shown(self.text, 200)}"
            )
        return message


class Refused(Broken):
    """The endpoint answered a request with an error status."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"HTTP {answer.status}: {replies.shown(answer.text, 300)}")
        self.answer = answer


class _Left(Exception):
    """We stopped waiting, on purpose."""


@dataclass(frozen=True, slots=True)
class Opening:
    """How a reply begins: where its first visible characters stood, and what they were."""

    kind: Literal["reasoning", "content", "tool call", "nothing"]
    text: str = ""


class Probe:
    """One target and the connection to it; a context manager."""

    def __init__(self, target: Target) -> None:
        import httpx2

        self.target = target
        self.pace = Pace(target.deadline_seconds)
        headers = {"Authorization": f"Bearer {target.api_key}"} if target.api_key else {}
        self._http = httpx2.Client(
            headers=headers,
            # A proxy of the environment has no business between us and this machine.
            trust_env=urlsplit(target.base_url).hostname not in LOOPBACK,
            # Servers close idle connections as they like (llama-server after 100 requests); a
            # request that meets such a close proves nothing, so each gets a connection of its own.
            limits=httpx2.Limits(max_keepalive_connections=0),
        )
        self._base = target.base_url.rstrip("/")
        self._served: str | None = target.served_name

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

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
        import httpx2

        try:
            answer = self.get("/models", first=True)
        except Broken:
            return  # it hangs: the checks will say so
        except httpx2.HTTPError as e:
            raise NetworkError(
                self._base,
                found=str(e) or type(e).__name__,
                expected="an OpenAI-compatible endpoint",
                hint="is it running? For deployments of qwharf see `qwharf ps`",
            ) from e
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
        """A request whose body is made already; raises as :meth:`chat`."""
        limit = int(body.get("max_tokens") or body.get("max_completion_tokens") or 64)
        deadline = self.pace.deadline(limit, prompt_tokens)
        start = time.monotonic()
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
            events: list[dict[str, Any]] = []
            done = False
            for data in self._stream(body, deadline):
                if data == "[DONE]":
                    done = True
                else:
                    events.append(sse.parse(data))
            reply = replies.streamed(events, done=done)
        else:
            answer = self.post("/chat/completions", body, deadline=deadline)
            if answer.status != 200:
                raise Refused(answer)
            reply = replies.whole(answer.body)
        self.pace.answered(reply, time.monotonic() - start)
        return reply

    def opening(self, messages: str | Sequence[Message], **wishes: Any) -> Opening:
        """Stream until the first few visible characters, then hang up: cheap, whatever follows."""
        body = self.body(messages, **wishes) | {"stream": True}
        events: list[dict[str, Any]] = []
        for data in self._stream(body, self.pace.deadline(body["max_tokens"])):
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
        with suppress(_Left):
            for data in self._stream(body, seconds, patient=False):
                if data != "[DONE]":
                    events.append(sse.parse(data))
        usage = replies.streamed(events, done=True).usage
        return usage.prompt_tokens if usage else None

    # ------------------------------------------------------------------------------ raw access

    def get(self, path: str, *, first: bool = False) -> Answer:
        """GET below the base URL; ``first`` lets connection errors through."""
        return self._call("GET", self._base + path, None, {}, self.pace.deadline(0), raw=first)

    def post(self, path: str, body: Any, *, deadline: float | None = None) -> Answer:
        """POST below the base URL; bytes are sent as they are, all else as JSON."""
        content = body if isinstance(body, bytes) else _json(body)
        return self._call("POST", self._base + path, content, {}, deadline)

    def applied(self) -> dict[str, Any]:
        """What the engine applied to its latest request, as llama-server's ``/slots`` tells.

        Raises:
            Unclear: the endpoint does not tell.
        """
        if not self.target.probe_url:
            raise Unclear("the endpoint does not show what sampling it applies")
        answer = self._call("GET", self._probe_url("/slots"), None, self._probe_headers, None)
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
        url = self._probe_url(path)
        answer = self._call("POST", url, _json(body), self._probe_headers, None)
        if answer.status != 200:
            raise Refused(answer)
        return answer.body

    def _probe_url(self, path: str) -> str:
        return f"{(self.target.probe_url or '').rstrip('/')}{path}"

    @property
    def _probe_headers(self) -> dict[str, str]:
        return dict(self.target.probe_headers)

    def _call(
        self,
        method: str,
        url: str,
        content: bytes | None,
        headers: dict[str, str],
        deadline: float | None,
        raw: bool = False,
    ) -> Answer:
        seconds = deadline or self.pace.deadline(0)
        with (
            self._translated(seconds, raw=raw),
            self._http.stream(
                method, url, content=content, headers=_typed(headers), timeout=seconds
            ) as response,
        ):
            kept = b"".join(_until(response.iter_bytes(), seconds))
            return Answer(response.status_code, kept.decode("utf-8", "replace"))

    def _stream(
        self, body: dict[str, Any], seconds: float, *, patient: bool = True
    ) -> Iterator[str]:
        url = self._base + "/chat/completions"
        with (
            self._translated(seconds, patient=patient),
            self._http.stream(
                "POST", url, content=_json(body), headers=_typed({}), timeout=seconds
            ) as response,
        ):
            pieces = _until(response.iter_bytes(), seconds)
            if response.status_code != 200:
                text = b"".join(pieces).decode("utf-8", "replace")
                raise Refused(Answer(response.status_code, text))
            kind = response.headers.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                raise Broken(f"a stream of content type `{kind}`, not `text/event-stream`")
            yield from sse.events(pieces)

    @contextmanager
    def _translated(
        self, seconds: float, *, raw: bool = False, patient: bool = True
    ) -> Iterator[None]:
        """Transport failures as facts."""
        import httpx2

        try:
            yield
        except (httpx2.TimeoutException, TimeoutError) as e:
            if not patient:
                raise _Left from e
            self.pace.missed()
            raise Broken(f"no complete answer within {seconds:.0f} s") from e
        except httpx2.HTTPError as e:
            if raw:
                raise
            raise Broken(f"the connection failed: {str(e) or type(e).__name__}") from e


def _opening(reply: Reply) -> Opening:
    if reply.reasoning.strip():
        return Opening("reasoning", reply.reasoning.strip())
    if reply.content.strip():
        return Opening("content", reply.content.strip())
    return Opening("tool call") if reply.tool_calls else Opening("nothing")


class Weak(Exception):
    """The model, not the deployment, fell short; the text is what it did instead."""


def first_success(
    attempt: Callable[[_Option], str], options: Iterable[_Option], otherwise: str
) -> str:
    """The finding of the first attempt that succeeds: a weak model gets more than one chance.

    An attempt raises :class:`Weak` when the model fell short, and :class:`Broken`, which ends the
    matter, when the deployment is at fault.

    Raises:
        Broken: every attempt was weak; ``otherwise`` says so, with what came instead.
    """
    instead = []
    for option in options:
        try:
            return attempt(option)
        except Weak as e:
            instead.append(str(e))
    raise Broken(f"{otherwise}: {'; '.join(instead)}")


def _until(pieces: Iterator[bytes], seconds: float) -> Iterator[bytes]:
    """Pass ``pieces`` on, but not beyond the deadline nor the size limit."""
    end, size = time.monotonic() + seconds, 0
    for piece in pieces:
        if time.monotonic() > end:
            raise TimeoutError
        size += len(piece)
        if size > MAX_BODY_BYTES:
            raise Broken(f"an answer of more than {MAX_BODY_BYTES:,} bytes")
        yield piece


def _json(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode("utf-8")


def _typed(headers: dict[str, str]) -> dict[str, str]:
    return {"Content-Type": "application/json", **headers}
