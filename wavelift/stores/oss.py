"""A bucket of Alibaba Cloud OSS as a store, by oss2. What is put, and what is got whole, is checked by CRC-64."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import fastcrc
import oss2
import requests
from oss2 import exceptions

from wavelift.stores.base import AlreadyThere, Corrupted, Denied, Entry, NotThere, StoreError, Unavailable, checked
from wavelift.stores.bucket import CONNECT_SECONDS, READ_SECONDS, BadBucket, Bucket, Client, in_batches
from wavelift.stores.patience import Busy, Patience

T = TypeVar("T")
_PAGE = 1000


class OssStore:
    def __init__(self, bucket: Bucket | Callable[[], Bucket], patience: Patience | None = None) -> None:
        """A callable is asked before each call, so that renewed credentials are used. Raises `BadBucket`."""
        where = bucket if callable(bucket) else lambda: bucket
        self._about = where()
        self._patience = patience or Patience()
        self._session = oss2.Session()
        self._client = Client(where, self._connect)

    @property
    def _bucket(self) -> Any:
        return self._client()

    def _connect(self, bucket: Bucket) -> Any:
        self._session.session.verify = bucket.ca_file or True
        if bucket.token:
            auth: Any = oss2.StsAuth(bucket.access_key_id, bucket.access_key_secret, bucket.token, auth_version="v4")
        else:
            auth = oss2.AuthV4(bucket.access_key_id, bucket.access_key_secret)
        try:
            return oss2.Bucket(
                auth,
                bucket.endpoint,
                bucket.bucket,
                region=bucket.region,
                session=self._session,
                connect_timeout=(CONNECT_SECONDS, READ_SECONDS),
                # Computed here: oss2's own takes ten times as long as sending does.
                enable_crc=False,
                is_path_style=bucket.by_path,
                # The store's endpoint is in its settings; a proxy of the environment is not meant for it.
                proxies={"http": "", "https": ""},
            )
        except exceptions.ClientError as error:
            raise BadBucket(bucket, error.body.removeprefix("ClientError: ")) from None

    @property
    def name(self) -> str:
        return f"oss://{self._about.bucket}/{self._about.prefix}".rstrip("/")

    def put(self, key: str, data: bytes | bytearray | memoryview, *, new: bool = False) -> None:
        # Nothing as bytes: of anything else that is empty no length would be sent.
        body = data or b""
        crc = fastcrc.crc64.xz(body)
        headers = {"x-oss-forbid-overwrite": "true"} if new else {}

        def put(tries: int) -> None:
            try:
                made = self._bucket.put_object(self._about.key(checked(key)), body, headers=headers)
            except exceptions.ServerError as error:
                if error.code != "FileAlreadyExists":
                    raise
                # The reply to an earlier try may have been lost after that one had done it.
                if tries and self._crc(key) == crc:
                    return
                raise AlreadyThere(self.name, key) from None
            if made.crc is not None and int(made.crc) != crc:
                raise Corrupted(f"{self.name} got {key} damaged.", "It is sent again; if it stays so, check the link.")

        self._ask(key, put)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if length == 0:
            self.size(key)
            return b""
        wanted = None if start == 0 and length is None else (start, None if length is None else start + length - 1)

        def get(_: int) -> bytes:
            try:
                found = self._bucket.get_object(self._about.key(checked(key)), byte_range=wanted)
                data: bytes = found.read()
            except exceptions.ServerError as error:
                if error.status == 416:
                    return b""
                raise
            short = found.content_length is not None and len(data) != found.content_length
            # A range that goes beyond the end is answered with all of the object.
            whole = found.status != 206 and found.server_crc is not None
            if short or (whole and fastcrc.crc64.xz(data) != int(found.server_crc)):
                raise Corrupted(f"{key} came damaged from {self.name}.", "Check the link, and the object.")
            return data if wanted is None or found.status == 206 else data[start:][:length]

        return self._ask(key, get)

    def size(self, key: str) -> int:
        return int(self._ask(key, lambda _: self._bucket.head_object(self._about.key(checked(key)))).content_length)

    def list(self, prefix: str) -> Iterator[Entry]:
        token, more = "", True
        while more:
            page = self._ask(prefix, self._page(prefix, token))
            for each in page.object_list:
                yield Entry(self._about.short(each.key), each.size, float(each.last_modified))
            token, more = page.next_continuation_token, page.is_truncated

    def delete(self, keys: Iterable[str]) -> None:
        for batch in in_batches(self._about.key(checked(key)) for key in keys):
            self._ask(batch[0], self._deletion(batch))

    def _page(self, prefix: str, token: str) -> Callable[[int], Any]:
        wanted = {"prefix": self._about.key(prefix), "continuation_token": token, "max_keys": _PAGE}
        return lambda _: self._bucket.list_objects_v2(**wanted)

    def _deletion(self, keys: Sequence[str]) -> Callable[[int], Any]:
        if len(keys) == 1:
            # For this the right to delete that one is enough, whatever else a policy holds.
            return lambda _: self._bucket.delete_object(keys[0])
        return lambda _: self._bucket.batch_delete_objects(keys)

    def _crc(self, key: str) -> int | None:
        with suppress(exceptions.NotFound):
            found = self._bucket.head_object(self._about.key(key))
            return None if found.server_crc is None else int(found.server_crc)
        return None

    def _ask(self, key: str, call: Callable[[int], T]) -> T:
        def asked(tries: int) -> T:
            try:
                return call(tries)
            except exceptions.OssError as error:
                raise self._explained(key, error) from error
            except requests.RequestException as error:
                # While a body is read, oss2 lets these through.
                raise Corrupted(f"{key} came short from {self.name}: {error}.", "Check the link.") from error

        return self._patience(asked)

    def _explained(self, key: str, error: exceptions.OssError) -> StoreError:
        said = f"{error.code or type(error).__name__}: {error.message or error.body}"
        if isinstance(error, exceptions.NoSuchKey) or (error.status == 404 and not error.code):
            return NotThere(self.name, key)
        if isinstance(error, exceptions.NoSuchBucket):
            return Denied(f"There is no bucket for {self.name}: {said}.", "Make it, or correct its name and endpoint.")
        if error.status in (401, 403):
            return Denied(f"{self.name} refuses {key}: {said}.", "Check the credentials, their rights and their age.")
        if error.status in (429, 503):
            return Busy(
                f"{self.name} has too much to do: {said}.", "Try again later, or lower the bandwidth.", _after(error)
            )
        if error.status < 0 or error.status >= 500 or error.status == 408:
            return Unavailable(
                f"{self.name} cannot be reached: {said}.", "Check endpoint and network; it goes on later."
            )
        return StoreError(f"{self.name} refuses {key}: {said}.", "Read what it says, and the store's settings.")


def _after(error: exceptions.OssError) -> float | None:
    said = (error.headers or {}).get("retry-after", "")
    return float(said) if said.isdigit() else None
