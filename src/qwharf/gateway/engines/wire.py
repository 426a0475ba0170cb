"""What stands between the one internal request and an engine: a table of :class:`Engine`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from qwharf.gateway.errors import ApiError
from qwharf.gateway.fields import JsonObject
from qwharf.gateway.requests import ChatRequest, CompletionRequest, EmbeddingRequest
from qwharf.types import DeploymentSpec


class Stream(Protocol):
    """One reply as it comes from the engine, turned into OpenAI's events."""

    content_type: str
    """That an answer must have to be read by this."""

    def feed(self, piece: bytes) -> bytes:
        """The whole events that are complete with ``piece``; possibly none.

        Raises:
            ApiError: what came makes no sense.
        """
        ...

    @property
    def pending_bytes(self) -> int:
        """Bytes of the event that is not yet whole."""
        ...

    @property
    def complete(self) -> bool:
        """Whether the engine has said that this was all."""
        ...

    @property
    def error(self) -> ApiError | None:
        """What the engine reported within the stream; nothing comes after it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """What the engine is sent: a body for each choice, and what becomes of the replies."""

    path: str
    bodies: Sequence[JsonObject]
    """Without the model's name, which the upstream knows."""
    model: str | None = None
    """The name to ask for instead, where adapters are models of their own."""
    read: Callable[[], Stream] | None = None
    """Makes the reader of one reply; ``None``: the engine is not asked to stream."""
    per_prompt: int = 1
    """Choices of one prompt, which stand side by side."""
    stream: bool = False
    """Whether the client wants a stream."""
    include_usage: bool = False


class Engine(Protocol):
    """One kind of engine: how it is asked, and how its answers are read. Holds no state."""

    def chat(self, request: ChatRequest, spec: DeploymentSpec) -> Wire:
        """A conversation.

        Raises:
            ApiError: 400; the engine cannot do what is asked, or would ignore it.
        """
        ...

    def completion(self, request: CompletionRequest, spec: DeploymentSpec) -> Wire:
        """Plain texts; raises as :meth:`chat`."""
        ...

    def embedding(self, request: EmbeddingRequest, spec: DeploymentSpec) -> Wire:
        """Texts to embed.

        Raises:
            ApiError: 501; it makes no embeddings.
        """
        ...
