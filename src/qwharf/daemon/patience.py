"""Calls that block, made so that a hung one holds up neither the daemon nor its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class TooSlowError(Exception):
    """A call did not return in time; it may still do so, and its outcome is lost."""


class Turns:
    """One call after the other, each in a thread that the process does not wait for at its end.

    (The threads of :func:`asyncio.to_thread` are few, and waited for: a service that hangs would
    hold the daemon.)
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._turn = asyncio.Lock()

    async def call(self, function: Callable[[], T], seconds: float) -> T:
        """What ``function`` returns or raises.

        Raises:
            TooSlowError: not within ``seconds``, its own turn included; whoever comes next waits
                for its end, so that no two are ever at work.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._turn.acquire()
        except TimeoutError:
            raise TooSlowError(f"busy for {seconds:.0f} seconds") from None
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()

        def settle(result: T | None, error: BaseException | None) -> None:
            self._turn.release()
            if outcome.cancelled() or outcome.done():
                return
            if error is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(result)  # type: ignore[arg-type]

        def work() -> None:
            result, error = None, None
            try:
                result = function()
            except BaseException as e:
                error = e
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more

        threading.Thread(target=work, name=self._name, daemon=True).start()
        try:
            async with asyncio.timeout(seconds):
                return await outcome
        except TimeoutError:
            if outcome.done() and not outcome.cancelled():  # the call's own
                raise
            raise TooSlowError(f"no answer within {seconds:.0f} seconds") from None
