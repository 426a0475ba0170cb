"""The deployments of this machine: the only place where they are started, stopped and counted."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import aiohttp

from qwharf import platforms
from qwharf.daemon import log
from qwharf.daemon.child import kill_orphan
from qwharf.daemon.limits import Limits
from qwharf.daemon.managed import Managed, PlatformOf
from qwharf.daemon.state import Row, State
from qwharf.errors import (
    Conflict,
    DaemonError,
    QwharfError,
    StorageError,
    UnknownDeployment,
    UsageError,
)
from qwharf.gateway.upstream import Upstream
from qwharf.naming import checked_name, is_name
from qwharf.types import Deployment, DeploymentSpec, Report

logger = logging.getLogger("qwharf.daemon")


class Supervisor:
    """All deployments; what the gateway asks (:class:`~qwharf.gateway.upstream.Deployments`) and
    what the admin routes do. Lives in one event loop.
    """

    def __init__(
        self,
        memory: State,
        log_dir: Path,
        *,
        limits: Limits | None = None,
        platform_of: PlatformOf = platforms.get,
    ) -> None:
        self.base_url = ""
        """The gateway's; set before anything is started."""
        self._memory = memory
        self._log_dir = log_dir
        self._limits = limits or Limits()
        self._platform_of = platform_of
        self._managed: dict[str, Managed] = {}
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._removing: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None
        self.closing = asyncio.Event()
        """Set when the daemon stops."""

    @property
    def session(self) -> aiohttp.ClientSession:
        """For talking to engines."""
        if self._session is None:
            # No cookies, no proxies of the environment: these are processes of this machine.
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
            )
        return self._session

    # ---------------------------------------------------------------------------- what is seen

    def all(self) -> Sequence[Deployment]:
        """Every deployment, in the order of their making; asked for every request."""
        return [m.deployment() for m in self._managed.values()]

    def measured(self) -> Sequence[Deployment]:
        """The same, with the memory that they hold now."""
        return [m.deployment(measured=True) for m in self._managed.values()]

    def managed(self, name: str) -> Managed:
        """One of them.

        Raises:
            UnknownDeployment: there is none of that name.
        """
        found = self._managed.get(name)
        if found is None:
            others = ", ".join(self._managed) or "none"
            old = log.path_of(self._log_dir, name) if is_name(name) else None
            kept = f"; its last log is kept at {old}" if old is not None and old.exists() else ""
            raise UnknownDeployment(
                name, found=f"these: {others}", hint=f"`qwharf ps` lists them{kept}"
            )
        return found

    async def ready(self, name: str) -> Upstream:
        """The living engine of ``name``; see :class:`~qwharf.gateway.upstream.Deployments`."""
        return await self.managed(name).upstream()

    def lost(self, upstream: Upstream) -> None:
        """A connection to ``upstream`` broke."""
        managed = self._managed.get(upstream.spec.name)
        if managed is not None:
            managed.lost(upstream.generation)

    # --------------------------------------------------------------------------- what is done

    def recover(self) -> None:
        """Start everything that was wanted when the last daemon ended; returns at once.

        Raises:
            StorageError: the state cannot be read.
        """
        rows, strange = self._memory.rows()
        for name, why in strange.items():
            logger.error("deployment %s cannot be understood and is left alone: %s", name, why)
        for row in rows:
            pid, since = row.pid, row.pid_started_at
            if pid is not None and since is not None and kill_orphan(pid, since):
                logger.warning("%s: killed engine %d, left over", row.spec.name, pid)
            if row.wanted == "removed" and not self._is_service(row.spec):
                self._memory.forget(row.spec.name)
                continue
            managed = self._new(replace(row, pid=None, pid_started_at=None))
            if row.wanted == "removed":
                self._removing.append(asyncio.create_task(self._remove_again(row.spec.name)))
            elif row.wanted == "running":
                managed.start(recover=True)
        log.prune(self._log_dir, set(self._managed))

    def _new(self, row: Row) -> Managed:
        name = row.spec.name
        managed = self._managed[name] = Managed(
            row,
            base_url=self.base_url,
            log=log.EngineLog(log.path_of(self._log_dir, name)),
            memory=self._memory,
            session=self.session,
            limits=self._limits,
            platform_of=self._platform_of,
        )
        return managed

    async def deploy(self, spec: DeploymentSpec) -> Managed:
        """Begin to run ``spec``, or find that it runs already; does not wait until it is ready.

        A deployment of the same name that has failed is replaced.

        Raises:
            UsageError, FormatUnavailable, InvalidFile: the platform refuses it.
            Conflict: something else runs under that name.
            StorageError: it cannot be remembered, and is not started.
            DaemonError: the daemon is about to stop.
        """
        name = spec.name
        self._check_names(spec)
        platform = self._platform_of(spec.platform)
        async with self._locked(name):
            self._refuse_if_closing()
            old = self._managed.get(name)
            if old is not None and old.state != "failed":
                if not same(old.spec, spec):
                    raise _taken(old.spec, spec)
                return old
            await asyncio.to_thread(platform.check, spec)
            self._refuse_if_closing()
            row = Row(
                spec=spec,
                wanted="running",
                created_at=time.time(),
                engine=await asyncio.to_thread(platform.engine),
            )
            self._refuse_if_closing()
            self._check_names(spec)  # again: others may have come meanwhile
            self._memory.put(row)
            if old is not None:
                try:
                    await self._end(old)
                except QwharfError:
                    self._memory.put(old.row)
                    raise
            self._memory.add_event(name, "deployed", f"{spec.model} as {spec.format}")
            managed = self._new(row)
            managed.start()
            return managed

    async def remove(self, name: str) -> None:
        """Stop ``name`` and forget it; its reports and its last log are kept.

        Raises:
            UnknownDeployment: there is none of that name.
            StorageError: it was stopped, but cannot be forgotten: it would come back.
            EngineError, StorageError: something of it is left where it was placed; it stays in the
                list, and the removal may be tried again.
        """
        async with self._locked(name):
            managed = self.managed(name)
            try:
                managed.remember(wanted="removed")  # in case the daemon dies half-way
            finally:
                await self._end(managed)
            self._memory.forget(name)
            self._memory.add_event(name, "removed")
            log.prune(self._log_dir, set(self._managed))

    def _is_service(self, spec: DeploymentSpec) -> bool:
        try:
            return not platforms.is_child(self._platform_of(spec.platform))
        except UsageError:
            return False

    async def _remove_again(self, name: str) -> None:
        """Finish what the last daemon began."""
        try:
            await self.remove(name)
        except QwharfError as e:
            logger.error("%s", e)

    async def _end(self, managed: Managed) -> None:
        await managed.stop(release=True)
        managed.log.close()
        self._managed.pop(managed.name, None)

    def _locked(self, name: str) -> asyncio.Lock:
        """Starting and stopping of one name, one after the other."""
        return self._locks.setdefault(name, asyncio.Lock())

    def _check_names(self, spec: DeploymentSpec) -> None:
        """Whatever a request may ask for means one thing, here and where capitals do not count."""
        taken = {
            name.casefold(): (name, other)
            for other, managed in self._managed.items()
            if other != spec.name
            for name in managed.spec.names
        }
        for at, name in enumerate(spec.names):
            what, option = (
                ("LoRA adapter", "--adapter NAME=PATH") if at else ("deployment", "--name")
            )
            checked_name(name, what, option)
            if name.casefold() in taken:
                other, owner = taken[name.casefold()]
                raise Conflict(
                    name,
                    found=f"`{other}`"
                    + (f" on `{owner}`" if owner != other else "")
                    + (", which differs in capitals only" if other != name else ""),
                    hint=f"choose another with {option}",
                )
            taken[name.casefold()] = (name, spec.name)

    def _refuse_if_closing(self) -> None:
        if self.closing.is_set():
            raise DaemonError("daemon", found="on its way to stop", hint="try again in a moment")

    # -------------------------------------------------------------------------------- reports

    def put_report(self, name: str, report: Report) -> None:
        """Keep ``report``; if it is about what runs now, it is the verdict on it.

        Raises:
            UnknownDeployment: there is none of that name.
            StorageError: it cannot be kept.
        """
        managed = self.managed(name)
        self._memory.add_report(name, report)
        if report.spec is not None and same(report.spec, managed.spec):
            managed.remember(
                verified="pass" if report.passed else "fail",
                verified_engine=report.versions.get("engine", managed.row.engine),
            )

    # ------------------------------------------------------------------------------------ end

    async def close(self) -> None:
        """Stop all engines; what is wanted stays wanted, for the next daemon."""
        self.closing.set()
        for task in self._removing:
            task.cancel()
        ended = await asyncio.gather(
            *(self._stop_for_now(m) for m in list(self._managed.values())), return_exceptions=True
        )
        for problem in filter(None, ended):
            logger.error("while stopping: %s", problem)
        if self._session is not None:
            await self._session.close()

    async def _stop_for_now(self, managed: Managed) -> None:
        await managed.stop(release=False)
        managed.log.close()
        try:
            managed.remember(pid=None, pid_started_at=None)
        except StorageError as e:
            logger.error("%s", e)


def same(one: DeploymentSpec, other: DeploymentSpec) -> bool:
    """Whether two specs ask for the same; what is expected of its memory does not matter."""
    return replace(one, expected_memory_bytes=None) == replace(other, expected_memory_bytes=None)


def _taken(old: DeploymentSpec, new: DeploymentSpec) -> Conflict:
    differs = [
        f"{field} {getattr(old, field)}"
        for field in ("model", "format", "platform", "context_tokens", "parallel", "kv_cache_type")
        if getattr(old, field) != getattr(new, field)
    ]
    return Conflict(
        new.name,
        found=f"a deployment with {', '.join(differs) or 'other files or placement'}",
        expected="the same, or a free name",
        hint=f"`qwharf down {new.name}` first, or choose another --name",
    )
