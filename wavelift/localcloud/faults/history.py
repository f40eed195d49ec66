"""What the store held a moment ago, for reads that lag behind.

Triggers keep every replaced version in a temporary table of the store's own connection: they take part in its
transactions, cover every way to write, and exist only while a rule needs them.
"""

import sqlite3
import time
from contextvars import ContextVar
from typing import TypeVar

from wavelift.localcloud.entities import Entity
from wavelift.localcloud.store import Shelf, Store, Transaction

E = TypeVar("E", bound=Entity)

# The moment that reads of this call look back to; 0 is now.
AS_OF: ContextVar[float] = ContextVar("as_of", default=0.0)

# `body` is NULL where there was nothing before.
_KEEP = (
    """CREATE TEMP TABLE past (
    number INTEGER PRIMARY KEY, until REAL NOT NULL, position INTEGER NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL,
    body TEXT)""",
    "CREATE INDEX temp.past_of ON past (kind, id, until)",
    """CREATE TEMP TRIGGER past_insert AFTER INSERT ON main.entity BEGIN
    INSERT INTO past (until, position, kind, id) VALUES (moment(), 0, NEW.kind, NEW.id); END""",
    """CREATE TEMP TRIGGER past_update AFTER UPDATE ON main.entity BEGIN
    INSERT INTO past (until, position, kind, id, body)
    VALUES (moment(), OLD.position, OLD.kind, OLD.id, OLD.body); END""",
    """CREATE TEMP TRIGGER past_delete AFTER DELETE ON main.entity BEGIN
    INSERT INTO past (until, position, kind, id, body)
    VALUES (moment(), OLD.position, OLD.kind, OLD.id, OLD.body); END""",
    """CREATE TEMP TRIGGER past_forget AFTER INSERT ON past BEGIN
    DELETE FROM past WHERE until < horizon(); END""",
)
_FORGET = ("past_insert", "past_update", "past_delete")
_VIEW = """
SELECT position, id, body FROM main.entity AS e WHERE kind = :kind
    AND NOT EXISTS (SELECT 1 FROM past WHERE kind = :kind AND id = e.id AND until > :moment)
UNION ALL
SELECT position, id, body FROM past AS p WHERE kind = :kind AND until > :moment AND body IS NOT NULL
    AND number = (SELECT MIN(number) FROM past WHERE kind = :kind AND id = p.id AND until > :moment)
ORDER BY position
"""


class PastTransaction(Transaction):
    """Reads what was true at a moment. Nothing that reads the past writes."""

    def __init__(self, connection: sqlite3.Connection, shelf: Shelf, moment: float) -> None:
        super().__init__(connection, shelf)
        self._past = connection
        self._moment = moment

    def get(self, kind: type[E], identifier: str) -> E | None:
        return next((entity for entity in self.all(kind) if entity.id == identifier), None)

    def look(self, kind: type[E]) -> list[E]:
        return self.all(kind)

    def all(self, kind: type[E]) -> list[E]:
        rows = self._past.execute(_VIEW, {"kind": kind.kind, "moment": self._moment})
        return [kind.model_validate_json(row[2]) for row in rows]

    def count(self, kind: type[Entity]) -> int:
        return len(self.all(kind))


class History:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._connection: sqlite3.Connection | None = None
        self._now = 0.0
        self._seconds = 0.0
        store.opened = self._open

    def _open(self, connection: sqlite3.Connection, shelf: Shelf) -> Transaction:
        """All changes of a transaction happen in one moment."""
        self._now = time.monotonic()
        if self._connection is not connection:
            self._connection = connection
            connection.create_function("moment", 0, lambda: self._now)
            connection.create_function("horizon", 0, lambda: self._now - self._seconds)
        if self._seconds and (moment := AS_OF.get()):
            return PastTransaction(connection, shelf, moment)
        return Transaction(connection, shelf)

    def remember(self, seconds: float) -> None:
        """So far back from now on; 0 forgets everything."""
        with self._store.transaction():
            assert self._connection is not None
            if seconds and not self._seconds:
                for statement in _KEEP:
                    self._connection.execute(statement)
            elif self._seconds and not seconds:
                for trigger in _FORGET:
                    self._connection.execute(f"DROP TRIGGER temp.{trigger}")
                self._connection.execute("DROP TABLE temp.past")
            self._seconds = seconds

    def changed_within(self, seconds: float) -> bool:
        with self._store.transaction():
            if not self._seconds or self._connection is None:
                return False
            row = self._connection.execute("SELECT 1 FROM past WHERE until > ? LIMIT 1", (self._now - seconds,))
            return row.fetchone() is not None
