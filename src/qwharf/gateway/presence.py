"""Clients that go away: their requests are cancelled, streamed or not.

aiohttp cancels handlers by itself only where its runner is told so; the gateway must not depend
on how it is run. A look at every open request, twenty times a second while there are any, costs
nothing to speak of and uses public interfaces only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

LOOK_SECONDS = 0.05


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class Presence:
    """Watches the clients of all requests under way."""

    def __init__(self) -> None:
        self._watched: dict[asyncio.Task[object], web.Request] = {}
        self._gone: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def watch(self, request: web.Request) -> Iterator[None]:
        """While the body runs, its task is cancelled when the client goes.

        Raises:
            ClientGone: it went.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - handlers run in tasks
        self._watched[task] = request
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
        try:
            yield
        except asyncio.CancelledError:
            if task in self._gone and task.uncancel() == 0:
                raise ClientGone from None
            raise
        finally:
            self._watched.pop(task, None)
            self._gone.discard(task)

    def _look(self) -> None:
        self._timer = None
        for task, request in list(self._watched.items()):
            transport = request.transport
            if transport is None or transport.is_closing():
                del self._watched[task]
                self._gone.add(task)
                task.cancel()
        if self._watched:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
