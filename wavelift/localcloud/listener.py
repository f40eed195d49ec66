"""An HTTP server on a socket of its own, in a thread of its own."""

import socket
import threading
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from wavelift.localcloud.faults.sockets import BreakableProtocol

KEEP_ALIVE = 120
GRACEFUL = 1  # seconds for what is being answered when the server ends; a transfer that stands still never would
BACKLOG = 512


@dataclass(frozen=True)
class Tls:
    certificate: Path
    key: Path


class Listener:
    """Bound when made, so that an application can be told its own address; answers from `start` to `stop`."""

    def __init__(self, name: str, listen: tuple[str, int], tls: Tls | None = None) -> None:
        self._name = name
        self._tls = tls
        # The protocol is named because asyncio switches Nagle off only on sockets that name it: 44 ms per request.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(listen)
            self._socket.listen(BACKLOG)
        except OSError:
            self._socket.close()
            raise
        host, port = self._socket.getsockname()
        self.endpoint = f"{host}:{port}"
        self._running: tuple[uvicorn.Server, threading.Thread] | None = None

    def start(self, application: ASGIApp) -> None:
        """Requests that came since the socket is bound are answered too."""
        config = uvicorn.Config(
            application,
            # httptools takes request lines of any length: 32 KB of user data make one of 46 KB.
            http=BreakableProtocol,
            ws="none",
            lifespan="off",
            loop="asyncio",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=GRACEFUL,
            ssl_certfile=self._tls.certificate if self._tls else None,
            ssl_keyfile=self._tls.key if self._tls else None,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(
            target=lambda: server.run(sockets=[self._socket]), name=f"localcloud-{self._name}", daemon=True
        )
        self._running = server, thread
        thread.start()

    def end(self) -> None:
        """Answer nothing more; `stop` waits for what is being answered."""
        if self._running is not None:
            self._running[0].should_exit = True

    def stop(self) -> None:
        self.end()
        if self._running is not None:
            self._running[1].join()
        self._socket.close()
