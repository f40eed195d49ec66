"""Multipart uploads: parts in any order, one object in the end."""

import secrets
from collections.abc import Iterator, Sequence

from wavelift.localcloud.oss.errors import OssError, invalid_argument
from wavelift.localcloud.oss.model import digests
from wavelift.localcloud.oss.model.blobs import Blobs, Staged
from wavelift.localcloud.oss.model.digests import Digest
from wavelift.localcloud.oss.model.index import UPLOAD, Index, Transaction, upload_of
from wavelift.localcloud.oss.model.listing import Page, page
from wavelift.localcloud.oss.model.objects import LARGEST, Check, check_free, check_key, now
from wavelift.localcloud.oss.model.values import Kind, Meta, Object, Part, Piece, Upload

SMALLEST_PART = 100 * 1024
MOST_PARTS = 10000
READ_SIZE = 1 << 20


class Uploads:
    def __init__(self, index: Index, blobs: Blobs) -> None:
        self._index = index
        self._blobs = blobs

    def begin(self, bucket: str, key: str, meta: Meta, only_new: bool = False) -> Upload:
        check_key(key)
        with self._index.transaction() as tx:
            check_free(tx, bucket, key, only_new)
            upload = Upload(secrets.token_hex(16).upper(), bucket, key, now(), meta)
            values = (upload.id, bucket, key, upload.initiated, meta.dump())
            tx.run(f"INSERT INTO upload ({UPLOAD}) VALUES (?, ?, ?, ?, ?)", *values)
        return upload

    def check(self, bucket: str, key: str, upload: str, number: int) -> None:
        """Refuses early what `put` would refuse in the end."""
        _check_number(number)
        with self._index.view() as tx:
            tx.upload(bucket, key, upload)

    def put(self, bucket: str, key: str, upload: str, number: int, staged: Staged) -> Part:
        """In the place of an earlier part of this number."""
        _check_number(number)
        with self._index.transaction() as tx:
            tx.upload(bucket, key, upload)
            return _keep_part(tx, upload, number, staged.pieces, staged.md5, staged.crc64)

    def copy(
        self,
        bucket: str,
        key: str,
        upload: str,
        number: int,
        source: tuple[str, str],
        check: Check,
        span: tuple[int, int] | None,
    ) -> tuple[Part, Object]:
        """A part out of an object, or of `span` of it, first and last byte. Its bytes are read, not written."""
        _check_number(number)
        with self._index.view() as tx:
            tx.upload(bucket, key, upload)
            found = tx.object(*source)
            check(found)
            first, last = span or (0, found.size - 1)
            if not 0 <= first <= last < found.size and span is not None:
                raise OssError("InvalidRange", ActualObjectSize=str(found.size), RangeRequested=f"bytes={first}-{last}")
            if last - first >= LARGEST:
                raise OssError("EntityTooLarge", MaxSizeAllowed=str(LARGEST))
            pieces = tx.pieces(found.content)
            reader = self._blobs.open(pieces)
        with reader:
            digest = Digest()
            offset = first
            while offset <= last:
                data = reader.read(offset, min(READ_SIZE, last + 1 - offset))
                digest.update(data)
                offset += len(data)
            chosen = list(_cut(pieces, first, last + 1))
            with self._index.transaction({piece.blob for piece in chosen}) as tx:
                tx.upload(bucket, key, upload)
                return _keep_part(tx, upload, number, chosen, digest.md5, digest.crc64), found

    def parts(self, bucket: str, key: str, upload: str, after: int = 0, limit: int = MOST_PARTS) -> Page[Part]:
        with self._index.view() as tx:
            tx.upload(bucket, key, upload)
            parts = list(tx.parts(upload, after))
            return Page(parts[:limit], truncated=len(parts) > limit)

    def complete(
        self, bucket: str, key: str, upload: str, wanted: Sequence[tuple[int, str]] | None, only_new: bool = False
    ) -> Object:
        """Out of the `wanted` parts, numbers and ETags; None is all there are."""
        with self._index.transaction() as tx:
            found = tx.upload(bucket, key, upload)
            have = {part.number: part for part in tx.parts(upload)}
            chosen = list(have.values()) if wanted is None else _choose(have, wanted)
            if not chosen:
                raise OssError("InvalidPart")
            for part in chosen[:-1]:
                if part.size < SMALLEST_PART:
                    details = {"PartNumber": str(part.number), "ETag": part.etag, "ProposedSize": str(part.size)}
                    raise OssError("EntityTooSmall", MinSizeAllowed=str(SMALLEST_PART), **details)
            check_free(tx, bucket, key, only_new)
            content = tx.new_content([piece for part in chosen for piece in tx.pieces(part.content)])
            crc = 0
            for part in chosen:
                crc = digests.combine(crc, part.crc64, part.size)
            etag = digests.multipart_etag([part.etag for part in chosen])
            size = sum(part.size for part in chosen)
            new = Object(bucket, key, content, size, etag, crc, now(), Kind.MULTIPART, found.meta)
            tx.keep(new)
            _forget(tx, upload)
        return new

    def abort(self, bucket: str, key: str, upload: str) -> None:
        with self._index.transaction() as tx:
            tx.upload(bucket, key, upload)
            _forget(tx, upload)

    def list(self, bucket: str, prefix: str, delimiter: str, after: str, after_id: str, limit: int) -> Page[Upload]:
        """`after_id` goes on among the uploads of the key `after`."""
        with self._index.view() as tx:
            tx.bucket(bucket)

            def source(start: str, inclusive: bool) -> Iterator[tuple[str, Upload]]:
                least = after_id if start == after else ""
                where = "(key, id) > (?, ?)" if inclusive else "key > ? AND ? IS NOT NULL"
                query = f"SELECT {UPLOAD} FROM upload WHERE bucket = ? AND {where} ORDER BY key, id"
                return ((row[2], upload_of(row)) for row in tx.rows(query, bucket, start, least))

            return page(source, prefix, delimiter, after, limit, again=bool(after_id))


def _check_number(number: int) -> None:
    if not 1 <= number <= MOST_PARTS:
        raise invalid_argument("partNumber", str(number), f"Part number must be between 1 and {MOST_PARTS}.")


def _keep_part(tx: Transaction, upload: str, number: int, pieces: Sequence[Piece], md5: str, crc64: int) -> Part:
    for (old,) in list(tx.rows("SELECT content FROM part WHERE upload = ? AND number = ?", upload, number)):
        tx.run("DELETE FROM part WHERE upload = ? AND number = ?", upload, number)
        tx.drop_content(old)
    part = Part(number, tx.new_content(pieces), sum(piece.length for piece in pieces), md5, crc64, now())
    tx.run(
        "INSERT INTO part (upload, number, content, size, etag, crc64, modified) VALUES (?, ?, ?, ?, ?, ?, ?)",
        *(upload, number, part.content, part.size, part.etag, str(part.crc64), part.modified),
    )
    return part


def _choose(have: dict[int, Part], wanted: Sequence[tuple[int, str]]) -> list[Part]:
    numbers = [number for number, _ in wanted]
    if numbers != sorted(set(numbers)):
        raise OssError("InvalidPartOrder")
    for number, etag in wanted:
        if number not in have or have[number].etag != etag.strip('"').upper():
            raise OssError("InvalidPart", PartNumber=str(number), ETag=etag)
    return [have[number] for number in numbers]


def _forget(tx: Transaction, upload: str) -> None:
    for part in list(tx.parts(upload)):
        tx.drop_content(part.content)
    tx.run("DELETE FROM part WHERE upload = ?", upload)
    tx.run("DELETE FROM upload WHERE id = ?", upload)


def _cut(pieces: Sequence[Piece], begin: int, end: int) -> Iterator[Piece]:
    at = 0
    for piece in pieces:
        first, last = max(begin - at, 0), min(end - at, piece.length)
        if first < last:
            yield Piece(piece.blob, piece.start + first, last - first)
        at += piece.length
