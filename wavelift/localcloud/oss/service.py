"""The object store behind a socket: HTTP in and out, bodies streamed both ways.

What takes time runs in threads; the event loop only moves bytes. While one batch of a body is hashed and written the
next is received, and the other way round when sending; no more than two are in memory.
"""

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from starlette.types import Receive, Scope, Send

from wavelift.localcloud.accounts import Accounts
from wavelift.localcloud.errors import ApiError
from wavelift.localcloud.faults.calls import Faults
from wavelift.localcloud.oss.errors import OssError, OtherError
from wavelift.localcloud.oss.model.blobs import Reader, Staged
from wavelift.localcloud.oss.model.objects import LARGEST
from wavelift.localcloud.oss.model.store import ObjectStore
from wavelift.localcloud.oss.wire import xml
from wavelift.localcloud.oss.wire.access import Access
from wavelift.localcloud.oss.wire.calls import Body, Call, Operation, Reply
from wavelift.localcloud.oss.wire.headers import check_digest, said_md5, sha256_mismatch
from wavelift.localcloud.oss.wire.request import Request
from wavelift.localcloud.oss.wire.routing import route
from wavelift.localcloud.oss.wire.signatures import authenticate

LOG = logging.getLogger(__name__)

THREADS = 16
BATCH = 1 << 20
SMALL = 64 << 10  # read at once
LARGEST_DOCUMENT = 8 << 20
SHA256_LENGTH = 64

# Details of errors that clients look for in the headers.
TOLD_TWICE = {"NextAppendPosition": "x-oss-next-append-position"}

T = TypeVar("T")


class Disconnected(Exception):
    """The client went away in the middle of its request."""


class ObjectService:
    """An ASGI application."""

    def __init__(self, store: ObjectStore, accounts: Accounts, region: str, faults: Faults) -> None:
        self._store = store
        self._faults = faults
        self._accounts = accounts
        self._region = region
        self._pool = ThreadPoolExecutor(THREADS, "oss")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        identifier = secrets.token_hex(12).upper()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        inbox = Inbox(receive)
        try:
            reply = await self._answer(scope, headers, inbox, identifier)
        except Disconnected:
            return
        except OssError as failure:
            reply = _refusal(failure, identifier, headers.get("host", ""))
        except ApiError as fault:
            ordered = OtherError(fault.code, fault.message, fault.status)
            reply = _refusal(ordered, identifier, headers.get("host", ""))
        except Exception:
            LOG.exception("request %s failed", identifier)
            reply = _refusal(OssError("InternalError"), identifier, headers.get("host", ""))
        said = {"Server": "AliyunOSS", "x-oss-request-id": identifier, **reply.headers}
        said["x-oss-server-time"] = str(int((time.monotonic() - began) * 1000))
        if not inbox.finished and headers.get("expect"):
            # Whether the body still comes is the client's choice: what follows on this connection is unknown.
            said["Connection"] = "close"
        await self._send(inbox, send, scope["method"], reply, said)

    async def _answer(self, scope: Scope, headers: Mapping[str, str], inbox: "Inbox", identifier: str) -> Reply:
        path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
        request = Request.parse(scope["method"], path, query, headers)
        credential = authenticate(request, self._accounts, self._region)
        operation = route(request)
        allow = Access(self._store, credential, self._region, request.parameter("prefix") or "").check
        subject = operation.action, request.bucket, request.key
        if operation.action and credential is None:
            await self._run(allow, *subject)  # looks the bucket up
        elif operation.action:
            allow(*subject)
        with self._faults.around_operation(operation.name, request.bucket, request.key, identifier):
            return await self._perform(operation, Call(request, self._store, self._region, allow), inbox)

    async def _perform(self, operation: Operation, call: Call, inbox: "Inbox") -> Reply:
        """Every operation passes here, known by its name and by `call.bucket` and `call.key`, and allowed."""
        if operation.body is Body.DOCUMENT:
            document = await _receive_document(call.request, inbox)
            return await self._run(_carry_out, operation, call.with_document(document))
        _check_length(call.request)
        said_md5(call.request)
        await self._run(operation.before, call)
        staged = await self._receive_content(call.request, inbox)
        return await self._run(_finish, operation, call, staged)

    async def _receive_content(self, request: Request, inbox: "Inbox") -> Staged:
        signed = request.s3 and len(request.header("x-amz-content-sha256")) == SHA256_LENGTH
        batch = await inbox.batch()
        if inbox.finished:
            return await self._run(self._stage, signed, batch)
        writer = await self._run(self._store.blobs.create, signed)
        writing: asyncio.Future[None] | None = None
        try:
            while batch:
                if writing is not None:
                    await writing
                if writer.size + len(batch) > LARGEST:
                    raise OssError("EntityTooLarge", MaxSizeAllowed=str(LARGEST))
                writing = self._start(writer.write, batch)
                batch = await inbox.batch()
            if writing is not None:
                await writing
            return await self._run(writer.finish)
        except BaseException:
            if writing is not None:
                await asyncio.wait([writing])
            await self._run(writer.abandon)
            raise

    def _stage(self, signed: bool, content: bytearray) -> Staged:
        with self._store.blobs.writing(signed) as writer:
            writer.write(content)
            return writer.finish()

    async def _send(self, inbox: "Inbox", send: Send, method: str, reply: Reply, headers: dict[str, str]) -> None:
        first, last = reply.content[1:] if reply.content else (0, len(reply.body))
        headers.setdefault("Content-Length", str(last - first))
        if reply.status in {204, 304}:
            headers.pop("Content-Length")
        lines = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]
        start = {"type": "http.response.start", "status": reply.status, "headers": lines}
        if reply.content is None:
            await send(start)
            await send({"type": "http.response.body", "body": b"" if method == "HEAD" else reply.body})
            return
        reader = reply.content[0]
        gone = asyncio.ensure_future(inbox.gone())
        try:
            await send(start)
            await self._send_content(send, reader, first, last, gone)
        finally:
            gone.cancel()
            await self._run(reader.close)

    async def _send_content(
        self, send: Send, reader: Reader, offset: int, end: int, gone: asyncio.Future[None]
    ) -> None:
        reading = self._start(reader.read, offset, min(BATCH, end - offset))
        try:
            while offset < end and not gone.done():
                data = await reading
                offset += len(data)
                if offset < end:
                    reading = self._start(reader.read, offset, min(BATCH, end - offset))
                await send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            await asyncio.wait([reading])
        await send({"type": "http.response.body", "body": b""})

    def _start(self, call: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._pool, call, *arguments)

    async def _run(self, call: Callable[..., T], *arguments: Any) -> T:
        return await self._start(call, *arguments)

    def close(self) -> None:
        self._pool.shutdown()


class Inbox:
    """The body of a request as it comes, and the end of its sender."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.finished = False

    async def batch(self, size: int = BATCH) -> bytearray:
        """At least `size` bytes, or what is left; nothing at the end."""
        gathered = bytearray()
        while not self.finished and len(gathered) < size:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            gathered += message.get("body", b"")
            self.finished = not message.get("more_body", False)
        return gathered

    async def gone(self) -> None:
        """Returns when nobody is there to read the reply."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _carry_out(operation: Operation, call: Call) -> Reply:
    reply = operation.run(call)
    if reply.content is None:
        return reply
    reader, first, last = reply.content
    if last - first > SMALL:
        return reply
    with reader:
        body = bytearray()
        while len(body) < last - first:
            body += reader.read(first + len(body), last - first - len(body))
    return replace(reply, body=bytes(body), content=None)


def _finish(operation: Operation, call: Call, staged: Staged) -> Reply:
    with call.store.blobs.using(staged):
        check_digest(call.request, staged)
        return operation.run(call.with_content(staged))


async def _receive_document(request: Request, inbox: Inbox) -> bytes:
    body = bytes(await inbox.batch(LARGEST_DOCUMENT + 1))
    if len(body) > LARGEST_DOCUMENT:
        raise OssError("MalformedXML")
    said = request.header("x-amz-content-sha256") if request.s3 else ""
    if len(said) == SHA256_LENGTH and said != (calculated := hashlib.sha256(body).hexdigest()):
        raise sha256_mismatch(request, calculated)
    return body


def _check_length(request: Request) -> None:
    length = request.header("content-length")
    if not length and "chunked" not in request.header("transfer-encoding").lower():
        raise OssError("MissingContentLength")
    if length and int(length) > LARGEST:
        raise OssError("EntityTooLarge", MaxSizeAllowed=str(LARGEST), ProposedSize=length)


def _refusal(failure: OssError, identifier: str, host: str) -> Reply:
    if failure.status == 304:
        return Reply(304, failure.details)
    body = xml.error(failure, identifier, host)
    said = {header: failure.details[detail] for detail, header in TOLD_TWICE.items() if detail in failure.details}
    return Reply(failure.status, {"Content-Type": "application/xml", "x-oss-err": xml.error_header(body), **said}, body)
