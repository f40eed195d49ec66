"""Everything the cloud knows, in one SQLite file.

One lock and one transaction at a time: a request sees and leaves a consistent cloud. Nothing slow happens inside a
transaction; copying files and talking to machines come between two of them.
"""

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from wavelift.localcloud.entities import Entity
from wavelift.localcloud.errors import ApiError

LOG = logging.getLogger(__name__)

E = TypeVar("E", bound=Entity)

SCHEMA = """
CREATE TABLE IF NOT EXISTS entity (
    position INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL,
    UNIQUE (kind, id));
CREATE TABLE IF NOT EXISTS token (
    action TEXT NOT NULL, value TEXT NOT NULL, fingerprint TEXT NOT NULL, reply TEXT NOT NULL,
    PRIMARY KEY (action, value));
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Token:
    """A client token: the same request twice has the effect and the reply of one."""

    action: str
    value: str
    fingerprint: str
    mismatch: ApiError


class Shelf:
    """Every entity of the kinds that somebody looked at, oldest first, as the database holds them: parsed once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._kinds: dict[type[Entity], dict[str, Entity]] = {}

    def of(self, kind: type[E]) -> dict[str, E]:
        if kind not in self._kinds:
            rows = self._connection.execute("SELECT body FROM entity WHERE kind = ? ORDER BY position", (kind.kind,))
            parsed = [kind.model_validate_json(row[0]) for row in rows]
            self._kinds[kind] = {entity.id: entity for entity in parsed}
        return cast("dict[str, E]", self._kinds[kind])

    def put(self, kind: type[Entity], identifier: str, body: str) -> None:
        if kind in self._kinds:
            self._kinds[kind][identifier] = kind.model_validate_json(body)

    def remove(self, kind: type[Entity], identifier: str) -> None:
        if kind in self._kinds:
            self._kinds[kind].pop(identifier, None)

    def forget(self, kinds: Iterable[type[Entity]]) -> None:
        for kind in kinds:
            self._kinds.pop(kind, None)


class Transaction:
    def __init__(self, connection: sqlite3.Connection, shelf: Shelf) -> None:
        self._connection = connection
        self._shelf = shelf
        self.changed: set[type[Entity]] = set()
        self.after_commit: list[Callable[[], None]] = []

    def get(self, kind: type[E], identifier: str) -> E | None:
        row = self._connection.execute(
            "SELECT body FROM entity WHERE kind = ? AND id = ?", (kind.kind, identifier)
        ).fetchone()
        return kind.model_validate_json(row[0]) if row else None

    def look(self, kind: type[E]) -> list[E]:
        """Oldest first. They are everybody's: to change one, `get` it."""
        return list(self._shelf.of(kind).values())

    def all(self, kind: type[E]) -> list[E]:
        """Oldest first, to be changed; costs far more than a look."""
        rows = self._connection.execute("SELECT body FROM entity WHERE kind = ? ORDER BY position", (kind.kind,))
        return [kind.model_validate_json(row[0]) for row in rows]

    def count(self, kind: type[Entity]) -> int:
        return len(self._shelf.of(kind))

    def put(self, entity: Entity) -> None:
        body = entity.model_dump_json()
        self.changed.add(type(entity))
        self._connection.execute(
            "INSERT INTO entity (kind, id, body) VALUES (?, ?, ?)"
            " ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body",
            (entity.kind, entity.id, body),
        )
        self._shelf.put(type(entity), entity.id, body)

    def remove(self, entity: Entity) -> None:
        self.changed.add(type(entity))
        self._connection.execute("DELETE FROM entity WHERE kind = ? AND id = ?", (entity.kind, entity.id))
        self._shelf.remove(type(entity), entity.id)

    def setting(self, name: str) -> str | None:
        row = self._connection.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    def keep(self, name: str, value: str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO setting (name, value) VALUES (?, ?)", (name, value))

    def next_number(self, name: str) -> int:
        number = int(self.setting(name) or 0) + 1
        self.keep(name, str(number))
        return number

    def recall(self, token: Token | None) -> str | None:
        """The id an earlier request with this token got."""
        if token is None:
            return None
        row = self._connection.execute(
            "SELECT fingerprint, reply FROM token WHERE action = ? AND value = ?", (token.action, token.value)
        ).fetchone()
        if row is None:
            return None
        if row[0] != token.fingerprint:
            raise token.mismatch
        return str(row[1])

    def remember(self, token: Token | None, reply: str) -> None:
        if token is not None:
            self._connection.execute(
                "INSERT INTO token (action, value, fingerprint, reply) VALUES (?, ?, ?, ?)",
                (token.action, token.value, token.fingerprint, reply),
            )

    def forget(self, reply: str) -> None:
        """What was made under a token is undone: the same request begins anew."""
        self._connection.execute("DELETE FROM token WHERE reply = ?", (reply,))


class Store:
    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(SCHEMA)
        # What a transaction is made by; one that reads the past may stand in.
        self.opened: Callable[[sqlite3.Connection, Shelf], Transaction] = Transaction
        self._shelf = Shelf(self._connection)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Committed when the block ends, undone when it raises; `after_commit` runs outside the lock."""
        if self._owner == threading.get_ident():
            raise RuntimeError("a transaction inside a transaction would wait for itself")
        with self._lock:
            self._owner = threading.get_ident()
            transaction = self.opened(self._connection, self._shelf)
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield transaction
                    self._connection.execute("COMMIT")
                except BaseException:
                    self._shelf.forget(transaction.changed)
                    # A commit that failed (a full disk) may have ended the transaction already.
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
            finally:
                self._owner = None
        for call in transaction.after_commit:
            try:
                call()
            except Exception:
                # It is committed: one that fails must not keep the others from what they owe.
                LOG.exception("something that follows a change failed")

    def close(self) -> None:
        with self._lock:
            self._connection.close()
