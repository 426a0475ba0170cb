"""The life of one deployment: started, watched, restarted, given up, stopped."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import cast

import aiohttp

from qwharf.daemon.child import Child
from qwharf.daemon.child_engine import ChildEngine
from qwharf.daemon.engine import Engine, NotReadyError
from qwharf.daemon.limits import Limits
from qwharf.daemon.log import EngineLog
from qwharf.daemon.service import ServedModel
from qwharf.daemon.state import Row, State
from qwharf.errors import EngineError, QwharfError, StorageError, UnknownDeployment, UsageError
from qwharf.gateway.upstream import Upstream
from qwharf.platforms import is_child
from qwharf.platforms.base import Platform, ServicePlatform
from qwharf.types import Deployment, DeploymentSpec, DeploymentState

logger = logging.getLogger("qwharf.daemon")

PlatformOf = Callable[[str], Platform]
_STATES: dict[str, DeploymentState] = {
    "running": "starting",
    "failed": "failed",
    "removed": "stopping",
}
MAX_PHASES = 200
"""Told of one start."""


class Managed:
    """One deployment and its engine. Everything happens in one event loop; a task of its own
    (:meth:`_live`) is the only one to change the state, but for :meth:`stop`.
    """

    def __init__(
        self,
        row: Row,
        *,
        base_url: str,
        log: EngineLog,
        memory: State,
        session: aiohttp.ClientSession,
        limits: Limits,
        platform_of: PlatformOf,
    ) -> None:
        self.row = row
        self.log = log
        self.state: DeploymentState = _STATES[row.wanted]
        self.detail: str | None = row.detail if row.wanted == "failed" else None
        self._base_url = base_url
        self._memory = memory
        self._session = session
        self._limits = limits
        self._platform_of = platform_of
        self._engine: Engine | None = None
        self._task: asyncio.Task[None] | None = None
        self._check: asyncio.Task[None] | None = None
        self._generation = 0
        self._restarts = 0
        self._ready_at: float | None = None
        self._phases: list[str] = []
        self._changed = asyncio.Event()

    # ---------------------------------------------------------------------------- what is seen

    @property
    def spec(self) -> DeploymentSpec:
        """What it was asked to run."""
        return self.row.spec

    @property
    def name(self) -> str:
        """The deployment's name."""
        return self.row.spec.name

    def deployment(self, *, measured: bool = False) -> Deployment:
        """As it is now; ``measured``: with the memory that it holds, which takes a moment."""
        engine, ready = self._engine, self.state == "ready"
        applied = engine.applied if engine else None
        return Deployment(
            spec=self.spec,
            state=self.state,
            base_url=self._base_url,
            engine_url=engine.url if engine and ready else None,
            engine=self.row.engine,
            pid=engine.pid if engine else None,
            created_at=self.row.created_at,
            ready_at=self._ready_at if ready else None,
            restarts=self._restarts,
            memory_bytes=applied.total_bytes if applied else None,
            rss_bytes=engine.rss_bytes() if engine and measured else None,
            detail=self.detail,
            verified=self.row.verified,
        )

    async def progress(self) -> AsyncIterator[str]:
        """What is going on, in words, until it is ready, given up or stopped."""
        told: list[str] = []
        seen = 0
        while True:
            changed = self._changed
            if told is not self._phases:
                told, seen = self._phases, 0
            for text in told[seen:]:
                seen += 1
                yield text
            if self.state not in ("starting", "restarting"):
                return
            if seen == len(told) and told is self._phases:
                await changed.wait()

    async def upstream(self) -> Upstream:
        """The living engine; waits for one that is on its way.

        Raises:
            EngineError: there is none, or not in time.
            UnknownDeployment: it was stopped meanwhile.
        """
        try:
            async with asyncio.timeout(self._limits.wait_seconds):
                while True:
                    changed, engine = self._changed, self._engine
                    if self.state == "ready" and engine and (url := engine.url):
                        if self._check is None:
                            return Upstream(
                                spec=self.spec,
                                url=url,
                                model=engine.model,
                                generation=self._generation,
                            )
                    elif self.state == "failed":
                        raise self.failure()
                    elif self.state in ("stopping", "stopped"):
                        raise UnknownDeployment(self.name, found="it was stopped")
                    await changed.wait()
        except TimeoutError:
            raise EngineError(
                self.name,
                found=f"not ready after {self._limits.wait_seconds:.0f} seconds",
                hint=f"`qwharf logs {self.name}` shows how far it is",
            ) from None

    def failure(self) -> EngineError:
        """Why it was given up."""
        return EngineError(
            self.name,
            found=self.detail or "no reason",
            hint=f"`qwharf logs {self.name}` shows all it said; `qwharf up` tries again",
        )

    # -------------------------------------------------------------------------- what is done

    def start(self, *, recover: bool = False) -> None:
        """Begin to live; with ``recover``, after a stop of the daemon, with more patience."""
        self._task = asyncio.create_task(self._live(recover), name=f"deployment {self.name}")

    def lost(self, generation: int) -> None:
        """A connection to the engine broke: requests wait until it was looked at."""
        if generation == self._generation and self.state == "ready" and self._check is None:
            self._check = asyncio.create_task(self._look(), name=f"check of {self.name}")

    async def stop(self, *, release: bool) -> None:
        """Stop the engine and live no more; ``release``: for good, with all that was placed.

        Raises:
            QwharfError: something is left of it; :meth:`stop` may be tried again.
        """
        self._set("stopping")
        for task in (self._task, self._check):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        try:
            engine = self._engine or (self._made() if release else None)
            if engine is not None:
                await engine.stop(release=release)
        except UsageError as e:  # its platform is none any more: there is nobody to ask
            logger.warning("%s", e)
        except QwharfError as e:
            self._set("failed", str(e))
            raise
        self._set("stopped")

    async def said(self, lines: int) -> list[str]:
        """The last lines of its log."""
        return await self._engine.said(lines) if self._engine else self.log.tail(lines)

    def remember(self, **changes: object) -> None:
        """Change the remembered row.

        Raises:
            StorageError: it cannot be written; the change is in force nevertheless.
        """
        self.row = replace(self.row, **changes)  # type: ignore[arg-type]
        self._memory.put(self.row)

    def _note(self, kind: str, text: str = "", **changes: object) -> None:
        """Note an event and change the row; a full disk must not stop an engine."""
        logger.info("%s: %s%s", self.name, kind, f": {text}" if text else "")
        try:
            if changes:
                self.remember(**changes)
            self._memory.add_event(self.name, kind, text)
        except StorageError as e:
            logger.error("%s", e)

    def _set(self, state: DeploymentState, detail: str | None = None) -> None:
        self.state, self.detail = state, detail
        self._tell_change()

    def _tell_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _tell(self, phase: str) -> None:
        if len(self._phases) < MAX_PHASES and (not self._phases or self._phases[-1] != phase):
            self._phases.append(phase)
            self._tell_change()

    # ------------------------------------------------------------------------------- its life

    async def _live(self, recover: bool) -> None:
        try:
            await self._run(recover)
        except QwharfError as e:
            self._give_up(str(e))
        except Exception as e:
            logger.exception("deployment %s", self.name)
            self._give_up(
                f"a mistake in qwharf ({type(e).__name__}: {e}); the daemon's log has more"
            )

    def _give_up(self, reason: str) -> None:
        self._note("failed", reason, wanted="failed", detail=reason, pid=None)
        self._set("failed", reason)
        self._tell_change()

    async def _run(self, recover: bool) -> None:
        platform = self._platform_of(self.spec.platform)
        if recover:  # a deploy has checked it already
            await asyncio.to_thread(platform.check, self.spec)
        self._forget_old_verdict(await asyncio.to_thread(platform.engine))
        engine = self._engine = self._made()
        failed_starts = short_lives = 0
        attempts = self._limits.start_attempts if recover else 1
        anew = not recover
        while True:
            try:
                await self._start(engine, anew)
            except NotReadyError as e:
                failed_starts += 1
                reason = str(e) or "it ended"
                if failed_starts >= attempts:
                    if not await self._given_up(engine, reason):
                        return
                    anew = False
                else:
                    self._note("start failed", reason)
                    self._set("restarting", reason)
                    await asyncio.sleep(self._limits.backoff(failed_starts + 1))
                continue
            failed_starts, attempts, anew = 0, self._limits.start_attempts, False
            ready = time.monotonic()
            reason = await engine.ended()
            self._restarts += 1
            lived = time.monotonic() - ready
            short_lives = short_lives + 1 if lived < self._limits.short_life_seconds else 1
            if short_lives > self._limits.short_lives:
                reason = f"it died {short_lives} times in a row, at last: {reason}"
                if not await self._given_up(engine, reason):
                    return
                continue
            self._note("died", reason, pid=None)
            self._phases = []
            self._set("restarting", reason)
            await asyncio.sleep(self._limits.backoff(short_lives))

    async def _given_up(self, engine: Engine, reason: str) -> bool:
        """Give up; whether it came back by itself, which may be at any time."""
        self._give_up(reason)
        if not await engine.returned():
            return False
        self._note("is back", wanted="running", detail=None)
        self._set("restarting", "it is back")
        return True

    def _made(self) -> Engine:
        """Its engine, not started.

        Raises:
            UsageError: its platform is not known any more.
        """
        platform = self._platform_of(self.spec.platform)
        if is_child(platform):
            return ChildEngine(
                self.spec,
                platform,
                log=self.log,
                session=self._session,
                limits=self._limits,
                started=self._save_process,
            )
        service = cast(ServicePlatform, platform)
        return ServedModel(self.spec, service, log=self.log, limits=self._limits)

    def _forget_old_verdict(self, engine: str) -> None:
        """What was proven on another version of the engine is not proven on this one."""
        changes: dict[str, object] = {"engine": engine, "detail": None}
        if self.row.verified_engine != engine:
            changes |= {"verified": None, "verified_engine": None}
        self._note("starting", engine, **changes)

    async def _start(self, engine: Engine, anew: bool) -> None:
        """Start the engine and wait until it is ready.

        Raises:
            NotReadyError: with the reason in words.
        """
        self._phases = []
        await engine.start(self._tell, anew=anew)
        if engine.title != self.row.engine:
            self._forget_old_verdict(engine.title)
        self._generation += 1
        self._ready_at = time.time()
        self._note("ready", f"process {engine.pid}" if engine.pid else engine.title)
        self._set("ready")

    def _save_process(self, child: Child) -> None:
        """So that the next daemon finds the engine, should it survive this one."""
        try:
            self.remember(pid=child.pid, pid_started_at=child.started_at)
        except StorageError as e:
            logger.error("%s", e)

    async def _look(self) -> None:
        """See whether the engine lives and answers."""
        try:
            done = await self._engine.look() if self._engine else None
            if done:
                self._note("hangs", done)
        finally:
            self._check = None
            self._tell_change()
