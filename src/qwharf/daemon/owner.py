"""Who has the port that we wanted."""

from __future__ import annotations

import http.client
import json

import psutil

from qwharf.daemon.wire import PREFIX, PROGRAM


def owner_of(host: str, port: int) -> str:
    """The program that listens on ``port``, as far as the system tells, in words."""
    return _another_qwharf(host, port) or _process(port) or "another program"


def _another_qwharf(host: str, port: int) -> str | None:
    """A qwharf daemon of another home; it is not sent our key."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - no binding here
    line = http.client.HTTPConnection(host, port, timeout=1.0)
    try:
        line.request("GET", f"{PREFIX}/status")
        told = json.loads(line.getresponse().read(65536))
        if told["program"] == PROGRAM:
            return f"the qwharf daemon of another home ({told['state_dir']}, process {told['pid']})"
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        pass
    finally:
        line.close()
    return None


def _process(port: int) -> str | None:
    try:
        for c in psutil.net_connections("tcp"):
            if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port and c.pid:
                return f"`{psutil.Process(c.pid).name()}`, process {c.pid}"
    except (psutil.Error, OSError, NotImplementedError):
        pass
    return None
