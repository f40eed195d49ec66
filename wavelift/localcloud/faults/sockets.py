"""uvicorn's protocol with a way to break the connection it answers on."""

import asyncio
import socket
import struct

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_EXTENSION = "localcloud.connection"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # linger on, for no time


class BreakableProtocol(HttpToolsProtocol):
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {_EXTENSION: {"transport": self.transport}}

    def shutdown(self) -> None:
        """The end of an idle TLS connection is not waited for: clients leave the goodbye unanswered in their pools."""
        super().shutdown()
        if self.transport.is_closing() and not self.transport.get_write_buffer_size():
            self.transport.abort()


def _transport(scope: Scope) -> asyncio.Transport:
    transport: asyncio.Transport = scope["extensions"][_EXTENSION]["transport"]
    return transport


def reset(scope: Scope) -> None:
    """The client gets RST."""
    transport = _transport(scope)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()


def end(scope: Scope) -> None:
    """The client gets what was sent, then the end of the stream."""
    _transport(scope).close()


def gone(scope: Scope) -> bool:
    return _transport(scope).is_closing()
