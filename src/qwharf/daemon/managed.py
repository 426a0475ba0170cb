"""The life of one deployment: started, watched, restarted, given up, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import aiohttp

from qwharf.daemon.child import Child, describe_exit
from qwharf.daemon.limits import Limits
from qwharf.daemon.log import EngineLog
from qwharf.daemon.starting import NotReadyError, answers, free_port, until_ready
from qwharf.daemon.state import Row, State
from qwharf.errors import EngineError, QwharfError, StorageError, UnknownDeployment
from qwharf.gateway.upstream import Upstream
from qwharf.platforms import is_child
from qwharf.platforms.base import Applied, ChildPlatform, Platform
from qwharf.types import Deployment, DeploymentSpec, DeploymentState

logger = logging.getLogger("qwharf.daemon")

PlatformOf = Callable[[str], Platform]
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
        self.state: DeploymentState = "failed" if row.wanted == "failed" else "starting"
        self.detail: str | None = row.detail if row.wanted == "failed" else None
        self._base_url = base_url
        self._memory = memory
        self._session = session
        self._limits = limits
        self._platform_of = platform_of
        self._child: Child | None = None
        self._spawning: asyncio.Task[Child] | None = None
        self._task: asyncio.Task[None] | None = None
        self._check: asyncio.Task[None] | None = None
        self._generation = 0
        self._restarts = 0
        self._ready_at: float | None = None
        self._applied: Applied | None = None
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
        child, ready = self._child, self.state == "ready"
        alive = child is not None and child.exit_code is None
        return Deployment(
            spec=self.spec,
            state=self.state,
            base_url=self._base_url,
            engine_url=child.launch.base_url if child and alive and ready else None,
            engine=self.row.engine,
            pid=child.pid if child and alive else None,
            created_at=self.row.created_at,
            ready_at=self._ready_at if ready else None,
            restarts=self._restarts,
            memory_bytes=self._applied.total_bytes if self._applied else None,
            rss_bytes=child.rss_bytes() if child and measured else None,
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
                    changed, child = self._changed, self._child
                    if self.state == "ready" and child and child.exit_code is None:
                        if self._check is None:
                            return Upstream(
                                spec=self.spec,
                                url=child.launch.base_url,
                                model=self.spec.name,
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

    async def stop(self) -> None:
        """Stop the engine and live no more."""
        self._set("stopping")
        for task in (self._task, self._check):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if self._spawning is not None:
            with contextlib.suppress(EngineError):
                child = await self._spawning
                await child.stop(self._limits.stop_seconds)
        self._set("stopped")

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
        if not is_child(platform):
            raise EngineError(self.name, found=f"{platform.name}, which cannot be driven yet")
        if recover:  # a deploy has checked it already
            await asyncio.to_thread(platform.check, self.spec)
        self._forget_old_verdict(platform.engine())
        failed_starts = short_lives = 0
        attempts = self._limits.start_attempts if recover else 1
        while True:
            try:
                child = await self._start_engine(platform)
            except NotReadyError as e:
                failed_starts += 1
                reason = e.reason or "it ended"
                if failed_starts >= attempts:
                    self._give_up(reason)
                    return
                self._note("start failed", reason)
                self._set("restarting", reason)
                await asyncio.sleep(self._limits.backoff(failed_starts + 1))
                continue
            failed_starts, attempts = 0, self._limits.start_attempts
            ready = time.monotonic()
            code = await child.wait()
            reason = self._explain(platform, code)
            self._restarts += 1
            lived = time.monotonic() - ready
            short_lives = short_lives + 1 if lived < self._limits.short_life_seconds else 1
            if short_lives > self._limits.short_lives:
                self._give_up(f"it died {short_lives} times in a row, at last: {reason}")
                return
            self._note("died", reason, pid=None)
            self._phases = []
            self._set("restarting", reason)
            await asyncio.sleep(self._limits.backoff(short_lives))

    def _forget_old_verdict(self, engine: str) -> None:
        """What was proven on another version of the engine is not proven on this one."""
        changes: dict[str, object] = {"engine": engine, "detail": None}
        if self.row.verified_engine != engine:
            changes |= {"verified": None, "verified_engine": None}
        self._note("starting", engine, **changes)

    async def _start_engine(self, platform: ChildPlatform) -> Child:
        """Start an engine and wait until it is ready.

        Raises:
            NotReadyError: with the reason in words.
        """
        self._phases = []
        self._tell("starting the engine")
        taken = 0
        while True:
            port = free_port()
            self._generation += 1
            self._spawning = asyncio.create_task(
                Child.start(platform.launch(self.spec, port), self.log)
            )
            try:
                child = await asyncio.shield(self._spawning)
            except EngineError as e:
                raise NotReadyError(str(e)) from e
            self._child = child
            self._save_process(child)
            child.on_line(lambda line: self._hear(platform, line))
            try:
                await until_ready(child, port, self._session, self._limits)
            except NotReadyError as e:
                await child.stop(0)
                taken += e.port_taken
                if e.port_taken and taken < self._limits.port_attempts:
                    continue
                doing = f" (at: {self._phases[-1]})" if self._phases else ""
                reason = e.reason + doing if e.reason else self._explain(platform, child.exit_code)
                raise NotReadyError(reason) from e
            child.on_line(None)
            self._applied = self._read_applied(platform)
            self._ready_at = time.time()
            self._note("ready", f"process {child.pid}")
            self._set("ready")
            return child

    def _save_process(self, child: Child) -> None:
        """So that the next daemon finds the engine, should it survive this one."""
        try:
            self.remember(pid=child.pid, pid_started_at=child.started_at)
        except StorageError as e:
            logger.error("%s", e)

    def _hear(self, platform: ChildPlatform, line: str) -> None:
        phase = platform.phase(line)
        if phase is not None:
            self._tell(phase)

    def _read_applied(self, platform: ChildPlatform) -> Applied | None:
        try:
            return platform.applied(self.log.run())
        except Exception:
            logger.exception("the log of %s cannot be read", self.name)
            return None

    def _explain(self, platform: ChildPlatform, code: int | None) -> str:
        try:
            reason = platform.explain(self.log.run(), code)
        except Exception:
            logger.exception("the log of %s cannot be read", self.name)
            reason = ""
        return reason or (describe_exit(code) if code is not None else "no reason given")

    async def _look(self) -> None:
        """See whether the engine lives and answers; kill it if it lives and does not."""
        child = self._child
        try:
            if child is None or await child.wait(0.5) is not None:
                return
            url = child.launch.base_url + child.launch.ready_path
            for _ in range(self._limits.health_attempts):
                if await answers(self._session, url, self._limits.health_seconds):
                    return
                if await child.wait(0.2) is not None:
                    return
            self._note("hangs", f"process {child.pid} does not answer; killed")
            await child.stop(0)
        finally:
            self._check = None
            self._tell_change()
