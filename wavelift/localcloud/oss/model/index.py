"""Everything but the bytes, in one SQLite file.

One transaction at a time. A file is complete on disk before the transaction that makes it part of an object, and goes
after the one that takes it away: at every moment what the rows say is there.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wavelift.localcloud.oss.errors import OssError
from wavelift.localcloud.oss.model.blobs import Blobs
from wavelift.localcloud.oss.model.values import Bucket, Kind, Meta, Object, Part, Piece, Upload

SCHEMA = """
CREATE TABLE IF NOT EXISTS bucket (
    name TEXT PRIMARY KEY, created INTEGER NOT NULL, acl TEXT NOT NULL, storage_class TEXT NOT NULL, lifecycle TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS object (
    bucket TEXT NOT NULL, key TEXT NOT NULL, content INTEGER NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
    crc64 TEXT NOT NULL, modified INTEGER NOT NULL, kind TEXT NOT NULL, meta TEXT NOT NULL,
    PRIMARY KEY (bucket, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS upload (
    id TEXT PRIMARY KEY, bucket TEXT NOT NULL, key TEXT NOT NULL, initiated INTEGER NOT NULL, meta TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS upload_key ON upload (bucket, key, id);
CREATE TABLE IF NOT EXISTS part (
    upload TEXT NOT NULL, number INTEGER NOT NULL, content INTEGER NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
    crc64 TEXT NOT NULL, modified INTEGER NOT NULL,
    PRIMARY KEY (upload, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS piece (
    content INTEGER NOT NULL, position INTEGER NOT NULL, blob TEXT NOT NULL, start INTEGER NOT NULL,
    length INTEGER NOT NULL,
    PRIMARY KEY (content, position)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS piece_blob ON piece (blob);
"""

BUCKET = "name, created, acl, storage_class, lifecycle"
OBJECT = "bucket, key, content, size, etag, crc64, modified, kind, meta"
UPLOAD = "id, bucket, key, initiated, meta"
PART = "number, content, size, etag, crc64, modified"


class Transaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.doomed: list[str] = []

    def rows(self, query: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        return iter(self._connection.execute(query, values))

    def run(self, statement: str, *values: Any) -> int:
        return self._connection.execute(statement, values).rowcount

    def bucket(self, name: str) -> Bucket:
        row = next(self.rows(f"SELECT {BUCKET} FROM bucket WHERE name = ?", name), None)
        if row is None:
            raise OssError("NoSuchBucket", BucketName=name)
        return Bucket(*row)

    def seek(self, bucket: str, key: str) -> Object | None:
        row = next(self.rows(f"SELECT {OBJECT} FROM object WHERE bucket = ? AND key = ?", bucket, key), None)
        return object_of(row) if row else None

    def object(self, bucket: str, key: str) -> Object:
        self.bucket(bucket)
        found = self.seek(bucket, key)
        if found is None:
            raise OssError("NoSuchKey", Key=key)
        return found

    def keep(self, new: Object) -> None:
        """In the place of what has its key now."""
        old = self.seek(new.bucket, new.key)
        self.run(
            f"INSERT OR REPLACE INTO object ({OBJECT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(new.bucket, new.key, new.content, new.size, new.etag, str(new.crc64), new.modified, new.kind),
            new.meta.dump(),
        )
        if old is not None and old.content != new.content:
            self.drop_content(old.content)

    def upload(self, bucket: str, key: str, identifier: str) -> Upload:
        self.bucket(bucket)
        query = f"SELECT {UPLOAD} FROM upload WHERE id = ? AND bucket = ? AND key = ?"
        row = next(self.rows(query, identifier, bucket, key), None)
        if row is None:
            raise OssError("NoSuchUpload", UploadId=identifier)
        return upload_of(row)

    def parts(self, upload: str, after: int = 0) -> Iterator[Part]:
        """In the order of their numbers."""
        query = f"SELECT {PART} FROM part WHERE upload = ? AND number > ? ORDER BY number"
        for number, content, size, etag, crc64, modified in self.rows(query, upload, after):
            yield Part(number, content, size, etag, int(crc64), modified)

    def pieces(self, content: int) -> list[Piece]:
        query = "SELECT blob, start, length FROM piece WHERE content = ? ORDER BY position"
        return [Piece(*row) for row in self.rows(query, content)]

    def new_content(self, pieces: Sequence[Piece]) -> int:
        if not pieces:
            return 0
        (last,) = next(self.rows("SELECT coalesce(max(content), 0) FROM piece"))
        self.add_pieces(int(last) + 1, pieces)
        return int(last) + 1

    def add_pieces(self, content: int, pieces: Sequence[Piece]) -> None:
        """Behind those it has."""
        (used,) = next(self.rows("SELECT coalesce(max(position), 0) FROM piece WHERE content = ?", content))
        rows = [
            (content, int(used) + number, piece.blob, piece.start, piece.length)
            for number, piece in enumerate(pieces, 1)
        ]
        self._connection.executemany("INSERT INTO piece VALUES (?, ?, ?, ?, ?)", rows)

    def drop_content(self, content: int) -> None:
        """And the files that nothing else refers to."""
        blobs = {piece.blob for piece in self.pieces(content)}
        self.run("DELETE FROM piece WHERE content = ?", content)
        self.doomed += [
            blob for blob in blobs if next(self.rows("SELECT 1 FROM piece WHERE blob = ? LIMIT 1", blob), None) is None
        ]

    def known_blobs(self) -> set[str]:
        return {row[0] for row in self.rows("SELECT DISTINCT blob FROM piece")}


class Index:
    def __init__(self, path: Path, blobs: Blobs) -> None:
        self._blobs = blobs
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(SCHEMA)

    @contextmanager
    def transaction(self, reprieved: Iterable[str] = ()) -> Iterator[Transaction]:
        """Committed when the block ends, undone when it raises. `reprieved` are files it refers to anew."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            transaction = Transaction(self._connection)
            try:
                yield transaction
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk ends it by itself
                    self._connection.execute("ROLLBACK")
                raise
            self._blobs.doom(transaction.doomed)
            self._blobs.reprieve(reprieved)
        if transaction.doomed:
            self._blobs.sweep()

    @contextmanager
    def view(self) -> Iterator[Transaction]:
        """For reading; nothing changes meanwhile."""
        with self._lock:
            yield Transaction(self._connection)

    def close(self) -> None:
        with self._lock:
            self._connection.close()


def object_of(row: Sequence[Any]) -> Object:
    bucket, key, content, size, etag, crc64, modified, kind, meta = row
    return Object(bucket, key, content, size, etag, int(crc64), modified, Kind(kind), Meta.load(meta))


def upload_of(row: Sequence[Any]) -> Upload:
    identifier, bucket, key, initiated, meta = row
    return Upload(identifier, bucket, key, initiated, Meta.load(meta))
