"""Objects: put, append, copy, read, list, delete."""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from wavelift.localcloud.oss.errors import OssError
from wavelift.localcloud.oss.model import digests
from wavelift.localcloud.oss.model.blobs import Blobs, Reader, Staged
from wavelift.localcloud.oss.model.index import OBJECT, Index, Transaction, object_of
from wavelift.localcloud.oss.model.listing import Page, page
from wavelift.localcloud.oss.model.values import Kind, Meta, Object

LONGEST_KEY = 1023
LARGEST = 5 * 1024**3  # of what one request puts or appends to, or copies between buckets
LARGEST_CONVERTED = 1024**3  # of what is copied into another storage class

Check = Callable[[Object], None]


class Objects:
    def __init__(self, index: Index, blobs: Blobs) -> None:
        self._index = index
        self._blobs = blobs

    def put(self, bucket: str, key: str, staged: Staged, meta: Meta, only_new: bool = False) -> Object:
        check_key(key)
        with self._index.transaction() as tx:
            check_free(tx, bucket, key, only_new)
            content = tx.new_content(staged.pieces)
            new = Object(bucket, key, content, staged.size, staged.md5, staged.crc64, now(), Kind.NORMAL, meta)
            tx.keep(new)
        return new

    def append(self, bucket: str, key: str, position: int, staged: Staged, meta: Meta) -> Object:
        """`meta` counts only where the object begins."""
        check_key(key)
        with self._index.transaction() as tx:
            tx.bucket(bucket)
            old = tx.seek(bucket, key)
            if old is not None and old.kind is not Kind.APPENDABLE:
                raise OssError("ObjectNotAppendable", Key=key)
            length = old.size if old else 0
            if position != length:
                raise OssError("PositionNotEqualToLength", Key=key, NextAppendPosition=str(length))
            if length + staged.size > LARGEST:
                raise OssError("EntityTooLarge", MaxSizeAllowed=str(LARGEST))
            if old is None or not old.content:
                content = tx.new_content(staged.pieces)
            else:
                content = old.content
                tx.add_pieces(content, staged.pieces)
            before, crc, said = (old.etag, old.crc64, old.meta) if old else ("", 0, meta)
            etag = hashlib.md5(f"{before}{staged.md5}".encode(), usedforsecurity=False).hexdigest().upper()
            crc = digests.combine(crc, staged.crc64, staged.size)
            new = Object(bucket, key, content, length + staged.size, etag, crc, now(), Kind.APPENDABLE, said)
            tx.keep(new)
        return new

    def copy(
        self,
        source: tuple[str, str],
        target: tuple[str, str],
        check: Check,
        meta: Callable[[Meta], Meta],
        only_new: bool = False,
    ) -> Object:
        """`check` refuses a source; `meta` makes the target's out of the source's. No byte moves."""
        check_key(target[1])
        with self._index.transaction() as tx:
            old = tx.object(*source)
            check(old)
            said = meta(old.meta)
            largest = LARGEST_CONVERTED if said.storage_class != old.meta.storage_class else LARGEST
            within = source[0] == target[0] and largest == LARGEST
            if old.size > largest and not within:
                raise OssError("EntityTooLarge", MaxSizeAllowed=str(largest))
            check_free(tx, *target, only_new)
            content = old.content if source == target else tx.new_content(tx.pieces(old.content))
            kind = Kind.NORMAL if old.kind is Kind.APPENDABLE and source != target else old.kind
            new = Object(*target, content, old.size, old.etag, old.crc64, now(), kind, said)
            tx.keep(new)
        return new

    def get(self, bucket: str, key: str) -> Object:
        with self._index.view() as tx:
            return tx.object(bucket, key)

    def open(self, bucket: str, key: str, check: Check | None = None) -> tuple[Object, Reader]:
        with self._index.view() as tx:
            found = tx.object(bucket, key)
            if check is not None:
                check(found)
            return found, self._blobs.open(tx.pieces(found.content))

    def check_free(self, bucket: str, key: str, only_new: bool) -> None:
        """Refuses early what `put` would refuse in the end."""
        check_key(key)
        with self._index.view() as tx:
            check_free(tx, bucket, key, only_new)

    def delete(self, bucket: str, keys: Iterable[str]) -> None:
        """What is not there is deleted already."""
        with self._index.transaction() as tx:
            tx.bucket(bucket)
            for key in keys:
                old = tx.seek(bucket, key)
                if old is not None:
                    tx.run("DELETE FROM object WHERE bucket = ? AND key = ?", bucket, key)
                    tx.drop_content(old.content)

    def set_acl(self, bucket: str, key: str, acl: str) -> None:
        self._change(bucket, key, lambda meta: dataclasses.replace(meta, acl=acl))

    def set_tags(self, bucket: str, key: str, tags: Mapping[str, str]) -> None:
        self._change(bucket, key, lambda meta: dataclasses.replace(meta, tags=tags))

    def list(self, bucket: str, prefix: str, delimiter: str, after: str, limit: int) -> Page[Object]:
        with self._index.view() as tx:
            tx.bucket(bucket)

            def source(start: str, inclusive: bool) -> Iterator[tuple[str, Object]]:
                query = (
                    f"SELECT {OBJECT} FROM object WHERE bucket = ? AND key {'>=' if inclusive else '>'} ? ORDER BY key"
                )
                return ((row[1], object_of(row)) for row in tx.rows(query, bucket, start))

            return page(source, prefix, delimiter, after, limit)

    def _change(self, bucket: str, key: str, change: Callable[[Meta], Meta]) -> None:
        with self._index.transaction() as tx:
            old = tx.object(bucket, key)
            tx.keep(dataclasses.replace(old, meta=change(old.meta)))


def check_key(key: str) -> None:
    if not 0 < len(key.encode()) <= LONGEST_KEY or key.startswith(("/", "\\")):
        raise OssError("InvalidObjectName", ObjectName=key)


def check_free(tx: Transaction, bucket: str, key: str, only_new: bool) -> None:
    tx.bucket(bucket)
    if only_new and tx.seek(bucket, key) is not None:
        raise OssError("FileAlreadyExists", Key=key)


def now() -> int:
    return int(time.time())
