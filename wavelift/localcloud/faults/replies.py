"""Faults of replies, in the ASGI layer: late, lost, cut short, altered, or another's."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wavelift.localcloud.faults import kinds, sockets
from wavelift.localcloud.faults.calls import EXCHANGE, Exchange, Faults
from wavelift.localcloud.faults.rules import Rule

CRC = b"x-oss-hash-crc64ecma"
STEPS_PER_SECOND = 20
BAD_GATEWAY = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n"
    b"<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)


class FaultyReplies:
    """Put around a service's application."""

    def __init__(self, application: ASGIApp, faults: Faults) -> None:
        self._application = application
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._faults.active or scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        exchange = Exchange()
        token = EXCHANGE.set(exchange)
        try:
            reply = _Reply(self._faults, exchange, scope, send)
            await self._application(scope, receive, reply.send)
        finally:
            EXCHANGE.reset(token)
        if reply.over:
            # The server expects a whole reply unless the client is gone: let it see that.
            while (await receive())["type"] != "http.disconnect":
                pass


class _Reply:
    def __init__(self, faults: Faults, exchange: Exchange, scope: Scope, send: Send) -> None:
        self._faults = faults
        self._exchange = exchange
        self._scope = scope
        self._send = send
        self._position = 0
        self._flip: int | None = None
        self._end: int | None = None
        self._pace = 0
        self._replaced = False
        self.over = False

    async def send(self, message: Message) -> None:
        if self.over or self._replaced:
            return
        if message["type"] == "http.response.start":
            await self._start(message)
        elif message["type"] == "http.response.body":
            await self._body(message)
        else:
            await self._send(message)

    async def _start(self, message: Message) -> None:
        exchange = self._exchange
        if exchange.delay:
            await asyncio.sleep(exchange.delay)
        outcome = exchange.outcome
        if isinstance(outcome, kinds.Reset):
            self.over = True
            sockets.reset(self._scope)
        elif isinstance(outcome, kinds.DropReply):
            self.over = True
            sockets.end(self._scope)
        elif isinstance(outcome, kinds.BadGateway):
            self._replaced = True
            await self._bad_gateway()
        else:
            more = [(name.encode(), value.encode()) for name, value in exchange.headers.items()]
            headers = self._spoiled(message["status"], [*message["headers"], *more])
            await self._send({**message, "headers": headers})

    async def _bad_gateway(self) -> None:
        headers = [(b"content-type", b"text/html"), (b"content-length", str(len(BAD_GATEWAY)).encode())]
        await self._send({"type": "http.response.start", "status": 502, "headers": headers})
        await self._send({"type": "http.response.body", "body": BAD_GATEWAY})

    def _spoiled(self, status: int, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The headers as they are sent; what happens to the body is noted."""
        if self._exchange.call is None or status >= 300:
            return headers
        said = {name.lower(): value for name, value in headers}
        length = int(said.get(b"content-length", 0)) if self._scope["method"] == "GET" else 0

        def possible(rule: Rule) -> bool:
            return CRC in said if isinstance(rule.fault, kinds.WrongCrc) else length > 0

        for fault in [rule.fault for rule in self._faults.take("reply", self._exchange.call, possible)]:
            if isinstance(fault, kinds.WrongCrc):
                wrong = str(int(said[CRC]) ^ 1).encode()
                headers = [(name, wrong if name.lower() == CRC else value) for name, value in headers]
            elif isinstance(fault, kinds.CorruptBody):
                self._flip = min(length // 2 if fault.offset is None else fault.offset, length - 1)
            elif isinstance(fault, kinds.TruncatedBody):
                self._end = min(length // 2 if fault.after_bytes is None else fault.after_bytes, length - 1)
            elif isinstance(fault, kinds.SlowBody):
                self._pace = fault.bytes_per_second
        return headers

    async def _body(self, message: Message) -> None:
        body = bytes(message.get("body", b""))
        start, self._position = self._position, self._position + len(body)
        if self._flip is not None and start <= self._flip < self._position:
            altered = bytearray(body)
            altered[self._flip - start] ^= 0x01
            body = bytes(altered)
        if self._end is not None and self._position > self._end:
            await self._pieces(body[: self._end - start], more=True)
            self.over = True
            sockets.end(self._scope)
            return
        await self._pieces(body, more=message.get("more_body", False))

    async def _pieces(self, body: bytes, *, more: bool) -> None:
        if self._pace:
            size = max(1, self._pace // STEPS_PER_SECOND)
            while body:
                piece, body = body[:size], body[size:]
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
                await asyncio.sleep(len(piece) / self._pace)
                if sockets.gone(self._scope):
                    self.over = True
                    return
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
