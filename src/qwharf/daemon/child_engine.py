"""An engine that is a child of the daemon, over all its starts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

import aiohttp

from qwharf.daemon.child import Child, describe_exit
from qwharf.daemon.engine import NotReadyError
from qwharf.daemon.limits import Limits
from qwharf.daemon.log import EngineLog
from qwharf.daemon.starting import StartError, answers, free_port, until_ready
from qwharf.errors import EngineError
from qwharf.platforms.base import Applied, ChildPlatform, Tell
from qwharf.types import DeploymentSpec

logger = logging.getLogger("qwharf.daemon")


class ChildEngine:
    """See :class:`~qwharf.daemon.engine.Engine`.

    Args:
        started: told of every process, which must be found again should it outlive the daemon.
    """

    def __init__(
        self,
        spec: DeploymentSpec,
        platform: ChildPlatform,
        *,
        log: EngineLog,
        session: aiohttp.ClientSession,
        limits: Limits,
        started: Callable[[Child], None],
    ) -> None:
        self._spec = spec
        self._platform = platform
        self._log = log
        self._session = session
        self._limits = limits
        self._started = started
        self._child: Child | None = None
        self._spawning: asyncio.Task[Child] | None = None
        self.applied: Applied | None = None

    # ---------------------------------------------------------------------------- what is seen

    @property
    def title(self) -> str:
        """Name and version."""
        return self._platform.engine()

    @property
    def _living(self) -> Child | None:
        child = self._child
        return child if child is not None and child.exit_code is None else None

    @property
    def url(self) -> str | None:
        """Where it answers, while it lives."""
        return self._living.launch.base_url if self._living else None

    @property
    def model(self) -> str:
        """It was told to call the model as the deployment is called."""
        return self._spec.name

    @property
    def pid(self) -> int | None:
        """Its process, while it lives."""
        return self._living.pid if self._living else None

    def rss_bytes(self) -> int | None:
        """Memory of it and its own children."""
        return self._child.rss_bytes() if self._child else None

    async def said(self, lines: int) -> list[str]:
        """Its log: this run's and earlier ones'."""
        return self._log.tail(lines)

    # ------------------------------------------------------------------------------- its life

    async def start(self, tell: Tell, *, anew: bool) -> None:
        """Start a process and wait until it answers; with another port where one is taken."""
        tell("starting the engine")
        taken = 0
        doing = ""

        def hear(line: str) -> None:
            nonlocal doing
            phase = self._platform.phase(line)
            if phase is not None:
                doing = f" (at: {phase})"
                tell(phase)

        while True:
            port = free_port()
            child = await self._spawn(port)
            child.on_line(hear)
            try:
                await until_ready(child, port, self._session, self._limits)
            except StartError as e:
                await child.stop(0)
                taken += e.port_taken
                if e.port_taken and taken < self._limits.port_attempts:
                    continue
                raise NotReadyError(
                    e.reason + doing if e.reason else self._explain(child.exit_code)
                ) from e
            child.on_line(None)
            self.applied = self._read_applied()
            return

    async def _spawn(self, port: int) -> Child:
        launch = self._platform.launch(self._spec, port)
        self._spawning = asyncio.create_task(Child.start(launch, self._log))
        try:
            child = await asyncio.shield(self._spawning)
        except EngineError as e:
            raise NotReadyError(str(e)) from e
        self._child = child
        self._started(child)
        return child

    async def ended(self) -> str:
        """Wait for its death."""
        assert self._child is not None  # noqa: S101 - asked of one that was started
        return self._explain(await self._child.wait())

    async def look(self) -> str | None:
        """Kill it if it lives and does not answer."""
        child = self._child
        if child is None or await child.wait(0.5) is not None:
            return None
        url = child.launch.base_url + child.launch.ready_path
        for _ in range(self._limits.health_attempts):
            if await answers(self._session, url, self._limits.health_seconds):
                return None
            if await child.wait(0.2) is not None:
                return None
        await child.stop(0)
        return f"process {child.pid} does not answer; killed"

    async def returned(self) -> bool:
        """A child does not come back by itself."""
        return False

    async def stop(self, *, release: bool) -> None:
        """End the process, even one that is just being made."""
        if self._spawning is not None:
            with contextlib.suppress(EngineError):
                child = await self._spawning
                await child.stop(self._limits.stop_seconds)

    # -------------------------------------------------------------------------------- its log

    def _read_applied(self) -> Applied | None:
        try:
            return self._platform.applied(self._log.run())
        except Exception:
            logger.exception("the log of %s cannot be read", self._spec.name)
            return None

    def _explain(self, code: int | None) -> str:
        try:
            reason = self._platform.explain(self._log.run(), code)
        except Exception:
            logger.exception("the log of %s cannot be read", self._spec.name)
            reason = ""
        return reason or (describe_exit(code) if code is not None else "no reason given")
