"""What a gateway read back of a volume, as a block map: the tables are fetched when they are asked for."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar
from urllib.parse import quote

from wavelift.blocks.blockmap import MAX_INDEX, FolderTables, decode_index, segment_digest, table_size
from wavelift.blocks.digest import ZERO_DIGEST
from wavelift.blocks.errors import MapError, SinkError, SinkUnreachable, WrongGateway
from wavelift.blocks.sink import (
    CORRUPT_TRIES,
    FIRST_PAUSE_SECONDS,
    GIVE_UP_SECONDS,
    LONGEST_PAUSE_SECONDS,
    Credential,
    answer_of,
    connect_control,
    refusal,
)
from wavelift.pinning import WrongCertificate

T = TypeVar("T")


class RemoteMap:
    """The read-back of the volume and generation that the descriptor names.

    A callable descriptor is asked before each fetch, so that a renewed token is used; `stop` ends the pauses between
    retries. Raises `SinkError` and its kinds, `MapError` for one that stays damaged.
    """

    def __init__(self, descriptor: Credential, stop: threading.Event) -> None:
        self._descriptor = descriptor
        self._stop = stop
        self._connection: http.client.HTTPConnection | None = None
        self._peer = ""
        try:
            self._map = self._fetch("", lambda index: decode_index(index, FolderTables(Path())))
        except BaseException:
            self.close()
            raise
        self.disk, self.size = self._map.disk, self._map.size

    def __enter__(self) -> RemoteMap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def segment(self, number: int) -> bytes:
        return self._map.segment(number)

    def table(self, number: int) -> bytes:
        name = self.segment(number)
        if name == ZERO_DIGEST:
            return self._map.table(number)
        length = table_size(self.size, number)

        def checked(table: bytes) -> bytes:
            if len(table) != length or segment_digest(table) != name:
                raise MapError(f"The table of segment {number} came damaged.", "Run the job again.")
            return table

        return self._fetch(f"/segments/{number}", checked)

    def _fetch(self, what: str, check: Callable[[bytes], T]) -> T:
        deadline = time.monotonic() + GIVE_UP_SECONDS
        pause = FIRST_PAUSE_SECONDS
        damaged = 0
        while True:
            descriptor = self._descriptor()
            try:
                response = self._ask(what)
                if response.status == 200:
                    return check(response.read(MAX_INDEX + 1))
                failure: SinkError | MapError = refusal(descriptor, response.status, answer_of(response)[1])
                renewed = self._descriptor().token != descriptor.token
                if response.status < 500 and not (response.status == 401 and renewed):
                    raise failure
            except WrongCertificate as error:
                raise WrongGateway(descriptor.url, error.pinned, error.shown) from None
            except MapError as error:
                failure, damaged = error, damaged + 1
                if damaged == CORRUPT_TRIES:
                    raise
            except (OSError, http.client.HTTPException) as error:
                self.close()
                failure = SinkUnreachable(
                    f"The gateway at {descriptor.url} cannot be reached: {type(error).__name__} {error}.",
                    "Check that it runs, then submit the job again.",
                )
            if time.monotonic() + pause > deadline or self._stop.wait(pause):
                raise failure
            pause = min(LONGEST_PAUSE_SECONDS, pause * 2)

    def _ask(self, what: str) -> http.client.HTTPResponse:
        descriptor = self._descriptor()
        if self._peer != descriptor.peer:
            self.close()
        if self._connection is None:
            self._connection = connect_control(descriptor)
            self._peer = descriptor.peer
        volume = quote(descriptor.volume, safe="")
        path = f"/v1/volumes/{volume}/readbacks/{descriptor.generation}{what}"
        self._connection.request("GET", path, headers={"Authorization": f"Bearer {descriptor.token}"})
        return self._connection.getresponse()
