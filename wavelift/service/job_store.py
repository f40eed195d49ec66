"""The SQLite table in which jobs survive restarts."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wavelift.service.errors import Conflict, NotFound, NotServing
from wavelift.service.events import EventKind, EventLog, JobEvent
from wavelift.service.jobs import TRANSITIONS, JobError, JobState, JobStatus, Progress

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
  key TEXT PRIMARY KEY, kind TEXT NOT NULL, spec TEXT NOT NULL, state TEXT NOT NULL,
  attempt INTEGER NOT NULL, step TEXT NOT NULL, progress TEXT NOT NULL, result TEXT, error TEXT,
  created TEXT NOT NULL, finished TEXT, cancel_requested INTEGER NOT NULL DEFAULT 0
) STRICT
"""
_COLUMNS = "key, kind, state, attempt, step, progress, result, error, created, finished"


class JobStore:
    """Jobs in one SQLite file, readable by its owner only because specs hold credentials."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.chmod(0o600)
        self._lock = threading.RLock()
        self._path = path
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute(_SCHEMA)
        self._events = EventLog(self._db)
        self._file = path.stat().st_ino

    @contextmanager
    def _change(self) -> Iterator[None]:
        """A job's row and the event that tells of it change together."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def events(self, after: int, limit: int, key: str | None) -> list[JobEvent]:
        with self._lock:
            return self._events.after(after, limit, key)

    def check(self) -> None:
        """Raises `NotServing` when what is stored would be lost, or cannot be: SQLite does not see its file go."""
        try:
            there = self._path.stat().st_ino == self._file
        except OSError:
            there = False
        if not there:
            raise NotServing("The file of the jobs is gone from the state folder.", "Restore the folder and restart.")
        if not os.access(self._path, os.W_OK):
            raise NotServing("The file of the jobs cannot be written to.", "Make the state folder writable.")

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def find(self, key: str) -> JobStatus | None:
        with self._lock:
            row = self._db.execute(f"SELECT {_COLUMNS} FROM jobs WHERE key = ?", (key,)).fetchone()
        return None if row is None else _status(row)

    def get(self, key: str) -> JobStatus:
        """Raises `NotFound`."""
        found = self.find(key)
        if found is None:
            raise NotFound(f"There is no job {key!r}.", "Submit it with PUT, or list the jobs there are.")
        return found

    def all(self) -> list[JobStatus]:
        with self._lock:
            rows = self._db.execute(f"SELECT {_COLUMNS} FROM jobs ORDER BY created, key").fetchall()
        return [_status(row) for row in rows]

    def in_state(self, state: JobState) -> list[str]:
        with self._lock:
            rows = self._db.execute("SELECT key FROM jobs WHERE state = ? ORDER BY created, key", (state,)).fetchall()
        return [str(row[0]) for row in rows]

    def spec(self, key: str) -> dict[str, Any]:
        with self._lock:
            row = self._db.execute("SELECT spec FROM jobs WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise NotFound(f"There is no job {key!r}.", "It was forgotten meanwhile.")
        loaded: dict[str, Any] = json.loads(row[0])
        return loaded

    def add(self, key: str, spec: Mapping[str, Any]) -> JobStatus:
        with self._change():
            self._db.execute(
                "INSERT INTO jobs (key, kind, spec, state, attempt, step, progress, created) "
                "VALUES (?, ?, ?, ?, 1, '', ?, ?)",
                (
                    key,
                    str(spec["kind"]),
                    json.dumps(spec),
                    JobState.QUEUED,
                    Progress().model_dump_json(),
                    _now(),
                ),
            )
            self._events.add(key, EventKind.STATE, JobState.QUEUED)
            return self.get(key)

    def replace_spec(self, key: str, spec: Mapping[str, Any]) -> None:
        with self._lock:
            self._db.execute("UPDATE jobs SET spec = ? WHERE key = ?", (json.dumps(spec), key))

    def request_cancel(self, key: str) -> None:
        with self._lock:
            self._db.execute("UPDATE jobs SET cancel_requested = 1 WHERE key = ?", (key,))

    def cancel_requested(self, key: str) -> bool:
        with self._lock:
            row = self._db.execute("SELECT cancel_requested FROM jobs WHERE key = ?", (key,)).fetchone()
        return row is not None and bool(row[0])

    def transition(
        self,
        key: str,
        to: JobState,
        *,
        result: Mapping[str, Any] | None = None,
        error: JobError | None = None,
    ) -> JobStatus:
        """Move a job along the transition table. Raises `NotFound`; `Conflict` for other moves."""
        with self._change():
            job = self.get(key)
            if to not in TRANSITIONS[job.state]:
                raise Conflict(f"Job {key!r} cannot go from {job.state} to {to}.", "Look at its state first.")
            again = to is JobState.QUEUED and job.state.final
            self._db.execute(
                "UPDATE jobs SET state = ?, attempt = attempt + ?, result = ?, error = ?, finished = ?, "
                "step = CASE WHEN ? THEN '' ELSE step END, "
                "cancel_requested = CASE WHEN ? THEN 0 ELSE cancel_requested END WHERE key = ?",
                (
                    to,
                    int(again),
                    None if result is None else json.dumps(result),
                    None if error is None else error.model_dump_json(),
                    _now() if to.final else None,
                    again,
                    again,
                    key,
                ),
            )
            notes = None if result is None else result.get("notes")
            for note in notes if isinstance(notes, list) else []:
                self._events.add(key, EventKind.NOTE, str(note))
            if error is not None:
                self._events.add(key, EventKind.ERROR, error.message, error.code)
            self._events.add(key, EventKind.STATE, to)
            return self.get(key)

    def report(self, key: str, step: str, progress: Progress) -> None:
        with self._change():
            row = self._db.execute("SELECT step FROM jobs WHERE key = ?", (key,)).fetchone()
            self._db.execute(
                "UPDATE jobs SET step = ?, progress = ? WHERE key = ?",
                (step, progress.model_dump_json(), key),
            )
            if row is not None and row[0] != step:
                self._events.add(key, EventKind.STEP, step)

    def remove(self, key: str) -> None:
        with self._change():
            self._db.execute("DELETE FROM jobs WHERE key = ?", (key,))
            self._events.forget(key)


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _status(row: tuple[Any, ...]) -> JobStatus:
    key, kind, state, attempt, step, progress, result, error, created, finished = row
    return JobStatus(
        key=key,
        kind=kind,
        state=JobState(state),
        attempt=attempt,
        step=step,
        progress=Progress.model_validate_json(progress),
        result=None if result is None else json.loads(result),
        error=None if error is None else JobError.model_validate_json(error),
        created=datetime.fromisoformat(created),
        finished=None if finished is None else datetime.fromisoformat(finished),
    )
