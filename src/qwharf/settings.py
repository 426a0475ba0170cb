"""Where things lie and where the daemon listens: the environment first, then defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qwharf.errors import UsageError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8383
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, read once.

    Environment: ``QWHARF_HOME`` (everything below one folder), ``QWHARF_HOST``, ``QWHARF_PORT``,
    ``QWHARF_API_KEY`` (required to bind anything but loopback).
    """

    data_dir: Path
    """The store: weights live here."""
    state_dir: Path
    """The daemon's database, logs and run file."""
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    api_key: str | None = None

    @property
    def store_dir(self) -> Path:
        """Root of the content-addressed store."""
        return self.data_dir / "store"

    @property
    def log_dir(self) -> Path:
        """Logs of the daemon and of every engine."""
        return self.state_dir / "logs"

    @property
    def daemon_url(self) -> str:
        """Where the command line looks for the daemon."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from ``environ`` (default: the process's own).

    Raises:
        UsageError: a variable holds nonsense, or a public address is asked for without a key.
    """
    env = os.environ if environ is None else environ
    home = env.get("QWHARF_HOME")
    if home:
        data, state = Path(home).expanduser() / "data", Path(home).expanduser() / "state"
    else:
        import platformdirs  # here: `qwharf --help` need not pay for it

        data = Path(platformdirs.user_data_dir("qwharf", appauthor=False))
        state = Path(platformdirs.user_state_dir("qwharf", appauthor=False))
    host = env.get("QWHARF_HOST") or DEFAULT_HOST
    key = env.get("QWHARF_API_KEY") or None
    if host not in LOOPBACK and key is None:
        raise UsageError(
            "QWHARF_HOST",
            found=host,
            expected="a loopback address while there is no API key",
            hint="set QWHARF_API_KEY before opening qwharf to other machines",
        )
    return Settings(
        data_dir=data, state_dir=state, host=host, port=_port(env.get("QWHARF_PORT")), api_key=key
    )


def _port(text: str | None) -> int:
    if not text:
        return DEFAULT_PORT
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise UsageError("QWHARF_PORT", found=text, expected="a port number from 1 to 65535")
    return int(text)
