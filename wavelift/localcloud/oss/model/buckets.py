"""Buckets: the names objects live under."""

import re
import time

from wavelift.localcloud.oss.errors import OssError
from wavelift.localcloud.oss.model.index import BUCKET, Index, Transaction
from wavelift.localcloud.oss.model.values import Bucket

MOST = 100
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")


class Buckets:
    def __init__(self, index: Index) -> None:
        self._index = index

    def put(self, name: str, acl: str | None, storage_class: str) -> None:
        """Of one that is there already only the ACL changes, and only if one is given."""
        if not _NAME.fullmatch(name):
            raise OssError("InvalidBucketName", BucketName=name)
        with self._index.transaction() as tx:
            (count,) = next(tx.rows("SELECT count(*) FROM bucket WHERE name != ?", name))
            if count >= MOST:
                raise OssError("TooManyBuckets")
            tx.run(
                "INSERT OR IGNORE INTO bucket (name, created, acl, storage_class) VALUES (?, ?, 'private', ?)",
                *(name, int(time.time()), storage_class),
            )
            if acl is not None:
                tx.run("UPDATE bucket SET acl = ? WHERE name = ?", acl, name)

    def get(self, name: str) -> Bucket:
        with self._index.view() as tx:
            return tx.bucket(name)

    def all(self, prefix: str = "", marker: str = "", limit: int | None = None) -> list[Bucket]:
        """In the order of their names, from behind the marker on."""
        with self._index.view() as tx:
            rows = tx.rows(f"SELECT {BUCKET} FROM bucket WHERE name > ? ORDER BY name", marker)
            return [bucket for row in rows if (bucket := Bucket(*row)).name.startswith(prefix)][:limit]

    def set_acl(self, name: str, acl: str) -> None:
        with self._index.transaction() as tx:
            tx.bucket(name)
            tx.run("UPDATE bucket SET acl = ? WHERE name = ?", acl, name)

    def set_lifecycle(self, name: str, document: str | None) -> None:
        with self._index.transaction() as tx:
            tx.bucket(name)
            tx.run("UPDATE bucket SET lifecycle = ? WHERE name = ?", document, name)

    def usage(self, name: str) -> tuple[int, int, int]:
        """Bytes, objects, unfinished uploads."""
        with self._index.view() as tx:
            tx.bucket(name)
            (size, objects) = next(
                tx.rows("SELECT coalesce(sum(size), 0), count(*) FROM object WHERE bucket = ?", name)
            )
            (uploads,) = next(tx.rows("SELECT count(*) FROM upload WHERE bucket = ?", name))
            return size, objects, uploads

    def delete(self, name: str) -> None:
        with self._index.transaction() as tx:
            tx.bucket(name)
            if _has_any(tx, "object", name) or _has_any(tx, "upload", name):
                raise OssError("BucketNotEmpty", BucketName=name)
            tx.run("DELETE FROM bucket WHERE name = ?", name)


def _has_any(tx: Transaction, table: str, bucket: str) -> bool:
    return next(tx.rows(f"SELECT 1 FROM {table} WHERE bucket = ? LIMIT 1", bucket), None) is not None
