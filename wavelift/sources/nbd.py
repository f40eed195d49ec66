"""Any NBD export, through libnbd: nbd://, nbds:// (x.509, TLS-PSK), nbd+unix://; see nbd_uri(1) for the forms."""

from __future__ import annotations

import importlib
import importlib.util
import queue
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from wavelift.blocks.digest import SECTOR
from wavelift.blocks.errors import SourceError
from wavelift.sources.base import Consistency, Extent
from wavelift.sources.nbd_status import joined, merge

_DEBIAN = Path("/usr/lib/python3/dist-packages")
_ALLOCATION = "base:allocation"
_BITMAP = "qemu:dirty-bitmap:"
_CONNECTIONS = 4
_READ = 1 << 20
# Below 4 GiB: lengths on the wire have 32 bits. A multiple of every block size.
_ASK = 1 << 30


class BitmapUnavailable(SourceError):
    """The export has no such bitmap; without one, changes are found by a scan."""

    default_code = "bitmap_unavailable"


@cache
def binding() -> ModuleType:
    """Debian's binding is outside every virtual environment; just its two modules are taken, not its folder."""
    if importlib.util.find_spec("nbd") is not None:
        return importlib.import_module("nbd")
    for name, path in (("libnbdmod", next(_DEBIAN.glob("libnbdmod*.so"), None)), ("nbd", _DEBIAN / "nbd.py")):
        spec = None if path is None else importlib.util.spec_from_file_location(name, path)
        if path is None or not path.exists() or spec is None or spec.loader is None:
            raise SourceError("The libnbd binding is not installed.", "Install python3-libnbd.", code="missing_program")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules["nbd"]


class NbdSource:
    """`bitmap` names a dirty bitmap of the server (QEMU's); what it calls dirty is what changed since `token`.

    Nothing in the protocol tells whether the content stands still: the caller says so by `consistency`.
    """

    kind = "nbd"

    def __init__(self, uri: str, bitmap: str | None = None, consistency: Consistency = Consistency.MOVING) -> None:
        self.uri = uri
        self.bitmap = bitmap
        self.consistency = consistency

    def open(self, token: str | None = None) -> NbdPointInTime:
        """Raises `SourceError`: unreachable, refused, no such export; `BitmapUnavailable`."""
        return NbdPointInTime(self.uri, self.bitmap, tracked=token is not None, consistency=self.consistency)


class NbdPointInTime:
    """An export. Reads share up to four connections where the server allows that, else one."""

    def __init__(self, uri: str, bitmap: str | None, *, tracked: bool, consistency: Consistency) -> None:
        self._uri = uri
        self._context = f"{_BITMAP}{bitmap}" if bitmap is not None and tracked else None
        self.consistency = consistency
        self.tracked = self._context is not None
        self.notes: Sequence[str] = ()
        # Each opening is a moment of its own: nothing tells that the content is still that of an earlier one.
        self.token = f"nbd:{uuid.uuid4().hex}"
        self._lock = threading.Lock()
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()
        self._handles: list[Any] = []
        first = self._connect()
        try:
            self.size = int(first.get_size())
            if self.size == 0 or self.size % SECTOR:
                raise SourceError(
                    f"The export {uri} has {self.size} bytes, not a positive multiple of {SECTOR}.",
                    "Check that it is a whole disk.",
                )
            self._limit = _CONNECTIONS if first.can_multi_conn() else 1
            self._step = min(_READ, first.get_block_size(binding().SIZE_MAXIMUM) or _READ)
            self._allocation = bool(first.can_meta_context(_ALLOCATION))
            if self._context is not None and not first.can_meta_context(self._context):
                raise BitmapUnavailable(
                    f"The export {uri} offers no bitmap {bitmap!r}.",
                    "Check its name and that it is not inconsistent (qemu-img info); changes can be found by a scan.",
                )
        except BaseException:
            first.shutdown()
            raise
        self._idle.put(first)
        self._handles.append(first)

    def extents(self) -> Iterator[Extent]:
        if not self._allocation and self._context is None:
            return iter([Extent(0, self.size, dirty=True, zero=False)])
        return joined(self._status())

    def readinto(self, offset: int, view: memoryview) -> None:
        with self._handle() as handle:
            for at in range(0, len(view), self._step):
                part = view[at : at + self._step]
                # Not aio_pread: libnbd 1.14 keeps the memory of every buffer it was given.
                part[:] = handle.pread(len(part), offset + at)

    def close(self) -> None:
        with self._lock:
            handles, self._handles, self._limit = self._handles, [], 0
        for handle in handles:
            try:
                handle.shutdown()
            except binding().Error:
                continue  # a server that went away first has nothing left to be told

    def _status(self) -> Iterator[Extent]:
        at = 0
        while at < self.size:
            found: dict[str, list[tuple[int, int]]] = {}

            def note(context: str, _offset: int, entries: list[int], _error: Any, found: Any = found) -> int:
                found[context] = list(zip(entries[::2], entries[1::2], strict=True))
                return 0

            with self._handle() as handle:
                handle.block_status(min(_ASK, self.size - at), at, note)
            allocation = found.get(_ALLOCATION, []) if self._allocation else None
            dirty = None if self._context is None else found.get(self._context, [])
            before = at
            for extent in merge(at, self.size, allocation, dirty):
                yield extent
                at = extent.start + extent.length
            if at == before:
                raise SourceError(
                    f"The server of {self._uri} says nothing about the blocks from byte {at} on.",
                    "Look at the server's log; another server or an image file can be read instead.",
                )

    @contextmanager
    def _handle(self) -> Iterator[Any]:
        handle = self._take()
        try:
            yield handle
        except binding().Error as error:
            raise SourceError(
                f"The export {self._uri} cannot be read: {error.string}.", "Check the server, then start again."
            ) from None
        finally:
            self._idle.put(handle)

    def _take(self) -> Any:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            with self._lock:
                more = len(self._handles) < self._limit
                if more:
                    handle = self._connect()
                    self._handles.append(handle)
                    return handle
        return self._idle.get()

    def _connect(self) -> Any:
        handle = binding().NBD()
        try:
            handle.add_meta_context(_ALLOCATION)
            if self._context is not None:
                handle.add_meta_context(self._context)
            # The name of a PSK file in the URI; the URI is the operator's own.
            handle.set_uri_allow_local_file(True)
            handle.connect_uri(self._uri)
        except binding().Error as error:
            raise SourceError(
                f"The export {self._uri} cannot be opened: {error.string}.",
                "Check that the server runs, the export's name, and the TLS files; nbdinfo shows the same.",
            ) from None
        return handle
