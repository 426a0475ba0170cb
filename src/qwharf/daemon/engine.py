"""What runs behind a deployment, seen by its owner: one of two kinds, with one life story.

:class:`~qwharf.daemon.child_engine.ChildEngine` is a process that the daemon starts and ends;
:class:`~qwharf.daemon.service.ServedModel` is a model that a program of the user's own holds.
"""

from __future__ import annotations

from typing import Protocol

from qwharf.platforms.base import Applied, Tell


class NotReadyError(Exception):
    """A start failed; the text says why."""


class Engine(Protocol):
    """The engine of one deployment, over all its starts. Lives in one event loop."""

    @property
    def title(self) -> str:
        """Name and version, as far as they are known; asked after :meth:`start`."""
        ...

    @property
    def url(self) -> str | None:
        """Where it answers; ``None``: it does not run."""
        ...

    @property
    def model(self) -> str:
        """The name under which it knows the model."""
        ...

    @property
    def pid(self) -> int | None:
        """Its process, where it has one on this machine."""
        ...

    @property
    def applied(self) -> Applied | None:
        """What it says that it allocated."""
        ...

    async def start(self, tell: Tell, *, anew: bool) -> None:
        """Bring it up and return when it answers; ``anew``: whatever is there already.

        Raises:
            NotReadyError: with the reason in words.
        """
        ...

    async def ended(self) -> str:
        """Return when it has ended, with the reason in words."""
        ...

    async def look(self) -> str | None:
        """A connection to it broke: see whether it lives and answers, and end what does not.

        Returns:
            What had to be done, in words, if something had.
        """
        ...

    async def returned(self) -> bool:
        """After it was given up: return when it is there again by itself; false: it never will."""
        ...

    async def stop(self, *, release: bool) -> None:
        """End it, whatever it was doing; ``release``: for good, and take back what was placed.

        Raises:
            QwharfError: something of it is left; it can be tried again.
        """
        ...

    async def said(self, lines: int) -> list[str]:
        """Its last words, and ours about it."""
        ...

    def rss_bytes(self) -> int | None:
        """Memory that it holds now; takes a moment."""
        ...
