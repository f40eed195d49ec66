"""A bucket of an S3-compatible store, by boto3. What is put is checked by the MD5 that the store must agree to."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import boto3
from botocore import exceptions
from botocore.config import Config

from wavelift.stores.base import AlreadyThere, Corrupted, Denied, Entry, NotThere, StoreError, Unavailable, checked
from wavelift.stores.bucket import CONNECT_SECONDS, READ_SECONDS, BadBucket, Bucket, Client, in_batches
from wavelift.stores.patience import Busy, Patience

T = TypeVar("T")
_GONE = ("NoSuchKey", "NotFound", "404")
_THERE = ("PreconditionFailed", "FileAlreadyExists", "ConditionalRequestConflict")
_DAMAGED = ("BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch")
_BUSY = ("SlowDown", "Throttling", "RequestLimitExceeded", "ServiceUnavailable")


class S3Store:
    def __init__(self, bucket: Bucket | Callable[[], Bucket], patience: Patience | None = None) -> None:
        """A callable is asked before each call, so that renewed credentials are used. Raises `BadBucket`."""
        where = bucket if callable(bucket) else lambda: bucket
        self._about = where()
        self._patience = patience or Patience()
        self._client: Client[Any] = Client(where, _connect)

    @property
    def _s3(self) -> Any:
        return self._client()

    @property
    def name(self) -> str:
        return f"s3://{self._about.bucket}/{self._about.prefix}".rstrip("/")

    def put(self, key: str, data: bytes | bytearray | memoryview, *, new: bool = False) -> None:
        body = bytes(data)
        digest = hashlib.md5(body, usedforsecurity=False)
        about = {"ContentMD5": base64.b64encode(digest.digest()).decode(), **({"IfNoneMatch": "*"} if new else {})}

        def put(tries: int) -> None:
            try:
                self._s3.put_object(**self._at(key), Body=body, **about)
            except exceptions.ClientError as error:
                if not new or _code(error) not in _THERE:
                    raise
                # The reply to an earlier try may have been lost after that one had done it.
                if tries and self._s3.head_object(**self._at(key))["ETag"].strip('"').lower() == digest.hexdigest():
                    return
                raise AlreadyThere(self.name, key) from None

        self._ask(key, put)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if length == 0:
            self.size(key)
            return b""
        wanted = {}
        if start or length is not None:
            wanted["Range"] = f"bytes={start}-{'' if length is None else start + length - 1}"

        def get(_: int) -> bytes:
            try:
                found = self._s3.get_object(**self._at(key), **wanted)
                data: bytes = found["Body"].read()
            except exceptions.ClientError as error:
                if _status(error) == 416:
                    return b""
                raise
            if len(data) != found["ContentLength"]:
                raise Corrupted(f"{key} came short from {self.name}.", "Check the link.")
            # A range that goes beyond the end is answered with all of the object by some.
            partial = found["ResponseMetadata"]["HTTPStatusCode"] == 206
            return data if not wanted or partial else data[start:][:length]

        return self._ask(key, get)

    def size(self, key: str) -> int:
        return int(self._ask(key, lambda _: self._s3.head_object(**self._at(key)))["ContentLength"])

    def list(self, prefix: str) -> Iterator[Entry]:
        about = {"Bucket": self._about.bucket, "Prefix": self._about.key(prefix)}
        while True:
            page = self._ask(prefix, self._page(about))
            for each in page.get("Contents", ()):
                yield Entry(self._about.short(each["Key"]), each["Size"], each["LastModified"].timestamp())
            if not page["IsTruncated"]:
                return
            about = {**about, "ContinuationToken": page["NextContinuationToken"]}

    def delete(self, keys: Iterable[str]) -> None:
        for batch in in_batches(self._about.key(checked(key)) for key in keys):
            wanted = {"Objects": [{"Key": key} for key in batch], "Quiet": True}
            gone = self._ask(batch[0], self._deletion(wanted))
            for refused in gone.get("Errors", ()):
                raise Denied(
                    f"{self.name} does not delete {refused['Key']}: {refused.get('Message')}.",
                    "Check the rights of the credentials.",
                )

    def _page(self, about: dict[str, str]) -> Callable[[int], Any]:
        return lambda _: self._s3.list_objects_v2(**about)

    def _deletion(self, wanted: dict[str, Any]) -> Callable[[int], Any]:
        return lambda _: self._s3.delete_objects(Bucket=self._about.bucket, Delete=wanted)

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._about.bucket, "Key": self._about.key(checked(key))}

    def _ask(self, key: str, call: Callable[[int], T]) -> T:
        def asked(tries: int) -> T:
            try:
                return call(tries)
            except exceptions.ClientError as error:
                raise self._explained(key, error) from error
            except exceptions.ParamValidationError as error:
                raise BadBucket(self._about, str(error)) from None
            except exceptions.BotoCoreError as error:
                raise Unavailable(
                    f"{self.name} cannot be reached: {error}.", "Check endpoint and network; it goes on later."
                ) from error

        return self._patience(asked)

    def _explained(self, key: str, error: exceptions.ClientError) -> StoreError:
        code, status = _code(error), _status(error)
        said = f"{code}: {error.response.get('Error', {}).get('Message', '')}"
        if code in _GONE:
            return NotThere(self.name, key)
        if code == "NoSuchBucket":
            return Denied(f"There is no bucket for {self.name}: {said}.", "Make it, or correct its name and endpoint.")
        if code in _DAMAGED:
            return Corrupted(f"{self.name} got {key} damaged.", "It is sent again; if it stays so, check the link.")
        if code in _BUSY or status in (429, 503):
            after = error.response["ResponseMetadata"].get("HTTPHeaders", {}).get("retry-after", "")
            return Busy(
                f"{self.name} has too much to do: {said}.",
                "Try again later, or lower the bandwidth.",
                float(after) if after.isdigit() else None,
            )
        if status in (401, 403):
            return Denied(f"{self.name} refuses {key}: {said}.", "Check the credentials, their rights and their age.")
        # A status alone is not the store's own answer, but that of something between.
        if status >= 500 or status == 408 or code.isdigit():
            return Unavailable(
                f"{self.name} cannot be reached: {said}.", "Check endpoint and network; it goes on later."
            )
        return StoreError(f"{self.name} refuses {key}: {said}.", "Read what it says, and the store's settings.")


def _connect(bucket: Bucket) -> Any:
    settings: dict[str, Any] = {
        "s3": {"addressing_style": "path" if bucket.by_path else "virtual"},
        # Others than Amazon know none of its newer checksums.
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        "retries": {"total_max_attempts": 1},
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "proxies": {},
    }
    try:
        client = boto3.client(
            "s3",
            aws_access_key_id=bucket.access_key_id,
            aws_secret_access_key=bucket.access_key_secret,
            aws_session_token=bucket.token or None,
            region_name=bucket.region,
            endpoint_url=bucket.endpoint,
            verify=bucket.ca_file or None,
            config=Config(**settings),
        )
    except ValueError as error:
        raise BadBucket(bucket, f"{error}.") from None
    client.meta.events.register("before-sign.s3.PutObject", _forbid_as_oss_does)
    client.meta.events.register("before-sign.s3.DeleteObjects", _with_md5)
    return client


def _forbid_as_oss_does(request: Any, **_: Any) -> None:
    """OSS, asked as S3, has no If-None-Match for a put, but a header of its own; to others it means nothing."""
    if request.headers.get("If-None-Match"):
        request.headers["x-oss-forbid-overwrite"] = "true"


def _with_md5(request: Any, **_: Any) -> None:
    """As every store asked before Amazon's newer checksums, and others still do."""
    digest = hashlib.md5(request.body, usedforsecurity=False).digest()
    request.headers["Content-MD5"] = base64.b64encode(digest).decode()


def _code(error: exceptions.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: exceptions.ClientError) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
