"""What happened to the jobs, numbered and kept across restarts; the oldest go when there are too many."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

KEPT = 10_000
MAX_ASKED = 1000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
  id INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT NOT NULL, job TEXT NOT NULL, what TEXT NOT NULL,
  text TEXT NOT NULL, code TEXT
) STRICT
"""


class EventKind(StrEnum):
    STATE = "state"
    STEP = "step"
    NOTE = "note"
    ERROR = "error"


class JobEvent(BaseModel):
    """`text` is the state or step it came to, the note, or the error's sentence; `code` is the error's."""

    model_config = ConfigDict(frozen=True)

    id: int
    time: datetime
    job: str
    migration: str
    what: EventKind
    text: str
    code: str | None = None


class EventLog:
    """A table beside the jobs; who uses it holds the connection's lock and begins and ends the transactions."""

    def __init__(self, db: sqlite3.Connection, kept: int = KEPT) -> None:
        self._db = db
        self._kept = kept
        db.execute(_SCHEMA)

    def add(self, job: str, what: EventKind, text: str, code: str | None = None) -> None:
        added = self._db.execute(
            "INSERT INTO events (time, job, what, text, code) VALUES (?, ?, ?, ?, ?)",
            (datetime.now(UTC).isoformat(), job, what, text, code),
        )
        self._db.execute("DELETE FROM events WHERE id <= ?", ((added.lastrowid or 0) - self._kept,))

    def after(self, after: int, limit: int, job: str | None) -> list[JobEvent]:
        """The next `limit` events after the one numbered `after`, oldest first."""
        rows = self._db.execute(
            "SELECT id, time, job, what, text, code FROM events WHERE id > ? AND (? IS NULL OR job = ?) "
            "ORDER BY id LIMIT ?",
            (after, job, job, limit),
        ).fetchall()
        return [
            JobEvent(
                id=number,
                time=datetime.fromisoformat(time),
                job=key,
                migration=key.split("/", 1)[0],
                what=EventKind(what),
                text=text,
                code=code,
            )
            for number, time, key, what, text, code in rows
        ]

    def forget(self, job: str) -> None:
        self._db.execute("DELETE FROM events WHERE job = ?", (job,))
