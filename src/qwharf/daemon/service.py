"""A model that a program of the user's own holds: deployed there, looked at, taken back.

The program is not ours: it may be restarted, upgraded, or lose the model at any time. So it is
asked, again and again, whether the model is there; a model that has gone is deployed once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from qwharf.daemon.engine import NotReadyError
from qwharf.daemon.limits import Limits
from qwharf.daemon.log import EngineLog
from qwharf.daemon.patience import TooSlowError, Turns
from qwharf.errors import EngineError, QwharfError
from qwharf.platforms.base import Applied, Served, ServicePlatform, Tell
from qwharf.types import DeploymentSpec

T = TypeVar("T")


class ServedModel:
    """See :class:`~qwharf.daemon.engine.Engine`."""

    def __init__(
        self,
        spec: DeploymentSpec,
        platform: ServicePlatform,
        *,
        log: EngineLog,
        limits: Limits,
    ) -> None:
        self._spec = spec
        self._platform = platform
        self._log = log
        self._limits = limits
        self._turns = Turns(f"service of {spec.name}")
        self._served: Served | None = None
        self._look_now = asyncio.Event()
        self._looked = asyncio.Event()

    # ---------------------------------------------------------------------------- what is seen

    @property
    def title(self) -> str:
        """Name and version, as the service tells them."""
        return self._served.engine if self._served else self._platform.name

    @property
    def url(self) -> str | None:
        """Where the service answers, while it has the model."""
        return self._served.url if self._served else None

    @property
    def model(self) -> str:
        """The name that the service gave it."""
        return self._served.model if self._served else self._spec.name

    @property
    def pid(self) -> int | None:
        """The service's process, where it is known."""
        return self._served.pid if self._served else None

    @property
    def applied(self) -> Applied | None:
        """Read back from the service."""
        return self._served.applied if self._served else None

    def rss_bytes(self) -> int | None:
        """Unknown: the service's process may hold other models too."""
        return None

    async def said(self, lines: int) -> list[str]:
        """What we did with it, then the service's own last lines."""
        log = partial(self._platform.log, self._spec, lines)
        try:
            theirs = list(await self._turns.call(log, self._limits.status_seconds))
        except (QwharfError, TooSlowError) as e:
            theirs = [f"--- qwharf: the log of {self._platform.name} cannot be read: {e}"]
        return [*self._log.tail(lines), *theirs][-lines:] if lines > 0 else []

    # ------------------------------------------------------------------------------- its life

    async def start(self, tell: Tell, *, anew: bool) -> None:
        """Deploy it, or take over what is still there."""
        self._log.begin(f"--- qwharf: {self._spec.name} on {self._platform.name}")
        loop = asyncio.get_running_loop()

        def hear(phase: str) -> None:
            self._log.feed(f"{phase}\n".encode())
            tell(phase)

        def hear_from_thread(phase: str) -> None:
            loop.call_soon_threadsafe(hear, phase)

        served = None if anew else await self._still_there()
        if served is None:
            deploy = partial(self._platform.deploy, self._spec, hear_from_thread)
            served = await self._asked(deploy, self._limits.deploy_seconds)
        self._served = served
        self._log.feed(f"{served.engine} serves `{served.model}` at {served.url}\n".encode())

    async def _still_there(self) -> Served | None:
        """After a restart of the daemon, or of the service; ``None`` leaves it to a deploy."""
        try:
            return await self._asked(self._status, self._limits.status_seconds)
        except NotReadyError:
            return None

    def _status(self) -> Served | None:
        return self._platform.status(self._spec)

    async def _asked(self, function: Callable[[], T], seconds: float) -> T:
        try:
            return await self._turns.call(function, seconds)
        except (QwharfError, TooSlowError) as e:
            reason = _reason(e)
            self._log.end(f"--- qwharf: {reason}")
            raise NotReadyError(reason) from e

    async def ended(self) -> str:
        """Look at it every few seconds, and at once when a connection broke."""
        silent = 0
        while True:
            try:
                async with asyncio.timeout(self._limits.look_seconds):
                    await self._look_now.wait()
            except TimeoutError:
                pass
            self._look_now.clear()
            reason, answered = await self._what_is_wrong()
            silent = 0 if answered else silent + 1
            if reason is None:
                self._looked.set()
            elif answered or silent >= self._limits.health_attempts:
                self._served = None
                self._looked.set()
                self._log.end(f"--- qwharf: {reason}")
                return reason
            else:
                self._look_now.set()  # again, a little later
                await asyncio.sleep(self._limits.look_again_seconds)

    async def _what_is_wrong(self) -> tuple[str | None, bool]:
        """In words, and whether the service answered at all."""
        assert self._served is not None  # noqa: S101 - asked of one that was started
        try:
            found = await self._turns.call(self._status, self._limits.status_seconds)
        except EngineError as e:
            return _reason(e), False
        except TooSlowError as e:
            return f"{self._platform.name}: {e}", False
        except QwharfError as e:
            return _reason(e), True
        if found is None:
            return f"{self._served.engine} does not have `{self._served.model}` any more", True
        if found.engine != self._served.engine:
            return f"{self._served.engine} has become {found.engine}", True
        self._served = found
        return None, True

    async def look(self) -> str | None:
        """Look now; requests wait until it is known how it stands."""
        self._looked.clear()
        self._look_now.set()
        await self._looked.wait()
        return None

    async def returned(self) -> bool:
        """Look for it in longer intervals: whoever ended the service may start it again."""
        while True:
            await asyncio.sleep(self._limits.return_seconds)
            try:
                if await self._turns.call(self._status, self._limits.status_seconds):
                    return True
            except (QwharfError, TooSlowError):
                continue

    async def stop(self, *, release: bool) -> None:
        """Take it back; or only let go of it, so that the next daemon finds it."""
        self._served = None
        self._looked.set()
        if not release:
            return
        take_back = partial(self._platform.release, self._spec)
        try:
            await self._turns.call(take_back, self._limits.release_seconds)
        except TooSlowError as e:
            raise EngineError(
                self._spec.name,
                found=f"{self._platform.name}: {e}",
                hint=f"end {self._platform.name}, then `qwharf down {self._spec.name}` again",
            ) from e
        self._log.end(f"--- qwharf: taken back from {self._platform.name}")


def _reason(error: Exception) -> str:
    """Of an error of ours the fact alone; the hint goes with it, for it says what to do."""
    if not isinstance(error, QwharfError):
        return str(error)
    hint = f"; {error.hint}" if error.hint else ""
    return f"{error.found or error}{hint}"
