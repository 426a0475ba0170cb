"""What the daemon remembers: deployments, reports and events, in SQLite.

One writer, the daemon (its lock sees to that). A commit survives the death of the process at any
moment; a power cut may cost the latest commits, never the database (WAL, ``synchronous=NORMAL``:
a stream of answers must not wait for a slow disk).
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from qwharf.codec import decode, encode
from qwharf.errors import InvalidFile, StorageError
from qwharf.types import DeploymentSpec, Report

SCHEMA_VERSION = 1
APPLICATION_ID = 0x71776861  # "qwha"
KEPT_REPORTS = 20
"""Per deployment name."""
KEPT_EVENTS = 2000

Wanted = Literal["running", "failed", "removed"]
"""running: start it whenever the daemon starts; failed: keep it to be looked at; removed: its
engine was being stopped, forget it."""

SCHEMA = """
CREATE TABLE deployments (
    name TEXT PRIMARY KEY,
    spec TEXT NOT NULL,
    wanted TEXT NOT NULL,
    detail TEXT,
    engine TEXT,
    created_at REAL NOT NULL,
    verified TEXT,
    verified_engine TEXT,
    pid INTEGER,
    pid_started_at REAL
);
CREATE TABLE reports (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    created_at REAL NOT NULL,
    passed INTEGER NOT NULL,
    report TEXT NOT NULL
);
CREATE INDEX reports_by_name ON reports (name, id);
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL
);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One remembered deployment."""

    spec: DeploymentSpec
    wanted: Wanted
    created_at: float
    detail: str | None = None
    engine: str | None = None
    """Name and version of the engine that last ran it."""
    verified: Literal["pass", "fail"] | None = None
    verified_engine: str | None = None
    """The engine that the verdict was reached on."""
    pid: int | None = None
    pid_started_at: float | None = None
    """With ``pid``: which process it was, should the daemon have died without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a deployment, or to the daemon (then ``name`` is empty)."""

    at: float
    name: str
    kind: str
    text: str


class State:
    """The open database. Every method is one transaction.

    Raises (all methods):
        StorageError: the disk is full, read-only, or fails.
    """

    def __init__(self, path: Path) -> None:
        """Open ``path``, making it if there is none.

        Raises:
            InvalidFile: it is damaged, is not ours, or was made by a newer qwharf. It is left as
                it is.
            StorageError: it cannot be opened or made.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=10)
        except (OSError, sqlite3.OperationalError) as e:
            raise self._storage(e) from e
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        try:
            version, application = self._pragma("user_version"), self._pragma("application_id")
            tables = self._one("SELECT count(*) FROM sqlite_master")
            if (version or tables) and application != APPLICATION_ID:
                raise self._unusable("another program's database", "qwharf's state")
            if version > SCHEMA_VERSION:
                raise self._unusable(
                    f"the state of a newer qwharf (schema {version})",
                    f"schema {SCHEMA_VERSION} or older",
                    f"use the newer qwharf, or {self._start_anew()}",
                )
            found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise self._unusable(f"a damaged database ({found})", "a sound one")
            self._db.execute("PRAGMA journal_mode=WAL")  # here: the first to write to the file
            self._db.execute("PRAGMA synchronous=NORMAL")
            if version == 0:
                self._create()
        except sqlite3.OperationalError as e:
            raise self._storage(e) from e
        except sqlite3.DatabaseError as e:
            raise self._unusable(f"a damaged database ({e})", "a sound one") from e

    def _create(self) -> None:
        self._db.executescript(
            f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id={APPLICATION_ID}; "
            f"PRAGMA user_version={SCHEMA_VERSION}; COMMIT;"
        )

    def _pragma(self, name: str) -> int:
        return self._one(f"PRAGMA {name}")

    def _one(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0])

    def _start_anew(self) -> str:
        return (
            f"move `{self.path}` (and -wal, -shm beside it) away: deployments are forgotten then, "
            "weights stay in the store"
        )

    def _unusable(self, found: str, expected: str, hint: str = "") -> InvalidFile:
        return InvalidFile(
            str(self.path), found=found, expected=expected, hint=hint or self._start_anew()
        )

    def _storage(self, error: Exception) -> StorageError:
        return StorageError(
            str(self.path),
            found=getattr(error, "strerror", None) or str(error),
            expected="a state folder with room that can be written",
            hint="free some space, or set QWHARF_HOME to a folder of yours",
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.DatabaseError as e:
            raise self._storage(e) from e

    def close(self) -> None:
        """Close it; folds the WAL into the file."""
        self._db.close()

    # ---------------------------------------------------------------------------- deployments

    def put(self, row: Row) -> None:
        """Remember ``row``, in place of what was remembered under its name."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO deployments (name, spec, wanted, detail, engine, created_at, verified,"
                " verified_engine, pid, pid_started_at) VALUES (?,?,?,?,?,?,?,?,?,?)"
                " ON CONFLICT (name) DO UPDATE SET spec=excluded.spec, wanted=excluded.wanted,"
                " detail=excluded.detail, engine=excluded.engine, created_at=excluded.created_at,"
                " verified=excluded.verified, verified_engine=excluded.verified_engine,"
                " pid=excluded.pid, pid_started_at=excluded.pid_started_at",
                (
                    row.spec.name,
                    json.dumps(encode(row.spec)),
                    row.wanted,
                    row.detail,
                    row.engine,
                    row.created_at,
                    row.verified,
                    row.verified_engine,
                    row.pid,
                    row.pid_started_at,
                ),
            )

    def forget(self, name: str) -> None:
        """Forget a deployment; its reports stay."""
        with self._transaction() as db:
            db.execute("DELETE FROM deployments WHERE name = ?", (name,))

    def rows(self) -> tuple[list[Row], dict[str, str]]:
        """All remembered deployments, oldest first; and, by name, what cannot be understood of
        the rest (written by a qwharf whose nouns have other fields), which stays as it is.
        """
        rows, strange = [], {}
        with self._transaction() as db:
            found = db.execute(
                "SELECT name, spec, wanted, detail, engine, created_at, verified, verified_engine,"
                " pid, pid_started_at FROM deployments ORDER BY created_at, rowid"
            ).fetchall()
        for name, spec, wanted, detail, engine, created, verified, on, pid, started in found:
            try:
                rows.append(
                    Row(
                        spec=decode(DeploymentSpec, json.loads(spec)),
                        wanted=cast(Wanted, wanted),
                        detail=detail,
                        engine=engine,
                        created_at=created,
                        verified=cast(Any, verified),
                        verified_engine=on,
                        pid=pid,
                        pid_started_at=started,
                    )
                )
            except ValueError as e:
                strange[str(name)] = str(e)
        return rows, strange

    # -------------------------------------------------------------------------------- reports

    def add_report(self, name: str, report: Report) -> None:
        """Keep ``report``; of each name the latest few are kept."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO reports (name, created_at, passed, report) VALUES (?,?,?,?)",
                (name, report.created_at, report.passed, json.dumps(encode(report))),
            )
            db.execute(
                "DELETE FROM reports WHERE name = ? AND id NOT IN"
                " (SELECT id FROM reports WHERE name = ? ORDER BY id DESC LIMIT ?)",
                (name, name, KEPT_REPORTS),
            )

    def reports(self, name: str, limit: int = KEPT_REPORTS) -> list[Report]:
        """The latest reports of a name, newest first; those of another shape are left out."""
        with self._transaction() as db:
            found = db.execute(
                "SELECT report FROM reports WHERE name = ? ORDER BY id DESC LIMIT ?", (name, limit)
            ).fetchall()
        reports = []
        for (text,) in found:
            with contextlib.suppress(ValueError):
                reports.append(decode(Report, json.loads(text)))
        return reports

    # --------------------------------------------------------------------------------- events

    def add_event(self, name: str, kind: str, text: str = "") -> None:
        """Note what happened; the oldest are dropped in time."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO events (at, name, kind, text) VALUES (?,?,?,?)",
                (time.time(), name, kind, text),
            )
            db.execute(
                "DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?", (KEPT_EVENTS,)
            )

    def events(self, name: str | None = None, limit: int = 200) -> list[Event]:
        """What happened, newest first; to one deployment or to all."""
        with self._transaction() as db:
            found = db.execute(
                "SELECT at, name, kind, text FROM events WHERE ?1 IS NULL OR name = ?1"
                " ORDER BY id DESC LIMIT ?2",
                (name, limit),
            ).fetchall()
        return [Event(at=at, name=name, kind=kind, text=text) for at, name, kind, text in found]
