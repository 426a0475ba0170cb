"""From a launch to an engine that answers: a free port, and patience while it makes progress."""

from __future__ import annotations

import socket
import time

import aiohttp

from qwharf.daemon.child import Child
from qwharf.daemon.limits import Limits

HOST = "127.0.0.1"


class StartError(Exception):
    """A start failed; the text says why, ``None`` leaves that to the engine's log."""

    def __init__(self, reason: str | None, *, port_taken: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.port_taken = port_taken


def free_port() -> int:
    """A port that nobody listens on now; somebody may in a moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def is_taken(port: int) -> bool:
    """Whether somebody listens on ``port``."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
        return False


async def until_ready(
    child: Child, port: int, session: aiohttp.ClientSession, limits: Limits
) -> None:
    """Return when the engine answers.

    There is no limit to how long that takes, as long as it goes on: the engine says something,
    its memory grows, it reads.

    Raises:
        StartError: it died, another program has its port, or nothing goes on any more.
    """
    url = child.launch.base_url + child.launch.ready_path
    work, cpu = child.signs_of_life()
    worked = busy = time.monotonic()
    looked = 0.0
    while True:
        if await child.wait(limits.poll_seconds) is not None:
            raise StartError(None, port_taken=is_taken(port))
        if await answers(session, url):
            if child.listens_on(port) is not False:
                return
            await child.stop(0)
            raise StartError("another program took its port", port_taken=True)
        now = time.monotonic()
        if now - looked < 1.0:
            continue
        looked = now
        new_work, new_cpu = child.signs_of_life()
        if new_work != work:
            work, worked = new_work, now
        if new_cpu > cpu + 0.1:
            cpu, busy = new_cpu, now
        if now - max(worked, busy) > limits.stall_seconds:
            raise StartError(f"no sign of life for {limits.stall_seconds:.0f} seconds")
        if now - worked > limits.busy_seconds:
            raise StartError(f"busy without progress for {limits.busy_seconds:.0f} seconds")


async def answers(session: aiohttp.ClientSession, url: str, seconds: float = 5.0) -> bool:
    """Whether a GET of ``url`` gets a 200."""
    try:
        timeout = aiohttp.ClientTimeout(total=seconds)
        async with session.get(url, timeout=timeout, allow_redirects=False) as response:
            return response.status == 200
    except (TimeoutError, aiohttp.ClientError, OSError):
        return False
