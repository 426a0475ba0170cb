"""How far an installation is, read from what pip and uv write."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

UNITS = {"B": 1, "bytes": 1, "kB": 1e3, "KB": 1e3, "KiB": 2**10, "MB": 1e6, "MiB": 2**20}
UNITS |= {"GB": 1e9, "GiB": 2**30}

RAW = re.compile(r"Progress (\d+) of (\d+)")
PIP_FILE = re.compile(r"\s*(?:Downloading|Using cached|Obtaining) (\S+)(?: \(([\d.]+) (\w+)\))?")
PIP_NEXT = re.compile(r"Collecting (\S+)|Processing (\S+)")
PIP_INSTALLING = re.compile(r"Installing collected packages:")
UV_FILE = re.compile(r"Downloading (\S+) \(([\d.]+)(\w+)\)")
UV_PREPARED = re.compile(r"Prepared \d+ packages?")


@dataclass(frozen=True, slots=True)
class State:
    """Where an installation is."""

    phase: str
    """``prepare``, ``resolve``, ``download``, ``install``, ``unpack``, ``compile``, ``check``; or
    ``wait``."""
    done: int = 0
    """Packages, or steps of a build."""
    total: int | None = None
    fetched_bytes: int = 0
    detail: str = ""
    """What it is at."""


Tell = Callable[[State], None]


def quiet(state: State) -> None:
    """Tells nobody."""


class Reader:
    """Understands the lines of one run of pip or uv."""

    def __init__(self, phase: str, total: int | None, tell: Tell) -> None:
        self.phase, self.total, self._tell = phase, total, tell
        self.done = 0
        self._fetched_bytes = 0
        self._file_bytes: int | None = None
        """Of the file under way, as far as pip counts them."""
        self._announced_bytes = 0
        self._detail = ""

    def line(self, text: str) -> None:
        """Take one line."""
        if found := RAW.fullmatch(text.strip()):
            self._file_bytes = int(found[1])
        elif found := UV_FILE.match(text) or PIP_FILE.match(text):
            self._settle()
            self._detail = found[1].rsplit("/", 1)[-1]
            self._announced_bytes = round(float(found[2] or 0) * UNITS.get(found[3] or "", 0))
            if found.re is UV_FILE:
                self.done += 1
        elif found := PIP_NEXT.match(text):
            self._settle()
            self.done += 1
            self._detail = (found[1] or found[2]).rsplit("/", 1)[-1]
        elif PIP_INSTALLING.match(text) or UV_PREPARED.match(text):
            self._settle()
            self.phase, self.done, self._detail = "install", 0, ""
        else:
            return
        self.tell()

    def _settle(self) -> None:
        """The file under way has come."""
        known = self._file_bytes if self._file_bytes is not None else self._announced_bytes
        self._fetched_bytes += known
        self._file_bytes, self._announced_bytes = None, 0

    def installed(self, count: int) -> None:
        """``count`` packages lie in the environment."""
        if self.phase == "install" and count != self.done:
            self.done = count
            self.tell()

    def tell(self) -> None:
        """Say where we are."""
        fetched = self._fetched_bytes + (self._file_bytes or 0)
        self._tell(State(self.phase, self.done, self.total, fetched, self._detail))
