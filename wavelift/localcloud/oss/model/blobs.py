"""The files that hold the bytes. A file is written once and never changed; its name says nothing of the object.

A file that no row refers to does not exist for anybody: that is what an upload under way is, and what is left of one
when the process is killed. Leftovers go at the next start. A file that is being read stays until the reader is done.
"""

import os
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wavelift.localcloud.oss.model.digests import Digest
from wavelift.localcloud.oss.model.values import Piece

DIGEST_THREADS = 4

# What writes or reads a file, and how it is made to let go of it.
Opened = dict[object, Callable[[], None]]


@dataclass(frozen=True)
class Staged:
    """Content on disk that no row refers to yet."""

    pieces: tuple[Piece, ...]
    size: int
    md5: str
    crc64: int
    sha256: str = ""


class Writer:
    """One file being written. Hashes and writes side by side; both let go of the interpreter lock."""

    def __init__(self, path: Path, pool: ThreadPoolExecutor, sha256: bool, opened: Opened) -> None:
        self._path = path
        self._pool = pool
        self._opened = opened
        self._digest = Digest(sha256)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.size = 0
        opened[self] = self.abandon

    def write(self, data: bytes | bytearray) -> None:
        hashed = self._pool.submit(self._digest.update, data)
        try:
            if data != bytes(len(data)):  # zeros become holes: an image of a disk is full of them
                view = memoryview(data)
                while view:
                    view = view[os.pwrite(self._file, view, self.size + len(data) - len(view)) :]
        finally:
            hashed.result()
        self.size += len(data)

    def finish(self) -> Staged:
        """Or, if the disk refuses in the end, to be abandoned."""
        os.truncate(self._file, self.size)
        os.fdatasync(self._file)
        os.close(self._file)
        del self._opened[self]
        if not self.size:
            self._path.unlink()
        pieces = (Piece(self._path.name, 0, self.size),) if self.size else ()
        return Staged(pieces, self.size, self._digest.md5, self._digest.crc64, self._digest.sha256)

    def abandon(self) -> None:
        del self._opened[self]
        os.close(self._file)
        self._path.unlink()


class Reader:
    """A content as it was when it was opened, whatever becomes of the object. To be closed."""

    def __init__(self, blobs: "Blobs", pieces: Sequence[Piece]) -> None:
        """The pieces are pinned already."""
        self._blobs = blobs
        self._pieces = pieces
        self.size = sum(piece.length for piece in pieces)
        self._at = 0  # the piece that is open, and where it begins
        self._begin = 0
        self._file: int | None = None
        blobs.opened[self] = self.close

    def read(self, offset: int, length: int) -> bytes:
        """Fewer bytes only at the end of a piece, none only at the end of the content."""
        if offset < self._begin:
            self._turn_to(0, 0)
        while self._at < len(self._pieces):
            piece = self._pieces[self._at]
            inside = offset - self._begin
            if inside < piece.length:
                if self._file is None:
                    self._file = os.open(self._blobs.path(piece.blob), os.O_RDONLY | os.O_CLOEXEC)
                data = os.pread(self._file, min(length, piece.length - inside), piece.start + inside)
                if not data:
                    raise OSError(f"{piece.blob} is shorter than what is known of it")
                return data
            self._turn_to(self._at + 1, self._begin + piece.length)
        return b""

    def whole_file(self) -> Path | None:
        """The one file that is exactly this content, if there is one; to be read while this is open."""
        if len(self._pieces) != 1 or self._pieces[0].start:
            return None
        path = self._blobs.path(self._pieces[0].blob)
        return path if path.stat().st_size == self.size else None

    def copy_to(self, path: Path, check: Callable[[], None] = lambda: None) -> None:
        """Into a new file, zeros as holes; `check` may raise at every piece."""
        with path.open("wb") as target:
            offset = 0
            while data := self.read(offset, 1 << 20):
                check()
                if data == bytes(len(data)):
                    target.seek(len(data), os.SEEK_CUR)
                else:
                    target.write(data)
                offset += len(data)
            target.truncate(self.size)

    def close(self) -> None:
        self._blobs.opened.pop(self, None)
        self._turn_to(len(self._pieces), self.size)
        self._blobs.release(self._pieces)
        self._pieces = ()

    def _turn_to(self, at: int, begin: int) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._at, self._begin = at, begin

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Blobs:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(DIGEST_THREADS, "oss-digest")
        self._lock = threading.Lock()
        self._pins: Counter[str] = Counter()
        self._doomed: set[str] = set()
        self.opened: Opened = {}
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        return self._folder / name[:2] / name

    def create(self, sha256: bool = False) -> Writer:
        path = self.path(secrets.token_hex(16))
        path.parent.mkdir(exist_ok=True)
        return Writer(path, self._pool, sha256, self.opened)

    @contextmanager
    def writing(self, sha256: bool = False) -> Iterator[Writer]:
        """To be finished inside; nothing is left of it if the block raises."""
        writer = self.create(sha256)
        try:
            yield writer
        except BaseException:
            writer.abandon()
            raise

    @contextmanager
    def using(self, staged: Staged) -> Iterator[None]:
        """Nothing is left of it if the block raises."""
        try:
            yield
        except BaseException:
            self.discard(staged)
            raise

    def discard(self, staged: Staged) -> None:
        for piece in staged.pieces:
            self.path(piece.blob).unlink()

    def open(self, pieces: Sequence[Piece]) -> Reader:
        """Called while no row can change: whatever the pieces name is there."""
        with self._lock:
            self._pins.update(piece.blob for piece in pieces)
        return Reader(self, pieces)

    def release(self, pieces: Sequence[Piece]) -> None:
        with self._lock:
            self._pins.subtract(piece.blob for piece in pieces)
            for piece in pieces:
                if not self._pins[piece.blob]:
                    del self._pins[piece.blob]
        self.sweep()

    def doom(self, names: Iterable[str]) -> None:
        """No row refers to these any more. Called before any row can change again; `sweep` removes the files."""
        with self._lock:
            self._doomed.update(names)

    def reprieve(self, names: Iterable[str]) -> None:
        """A row refers to these again, which the caller has open."""
        with self._lock:
            self._doomed.difference_update(names)

    def sweep(self) -> None:
        with self._lock:
            free = [name for name in self._doomed if name not in self._pins]
            self._doomed.difference_update(free)
        for name in free:
            self.path(name).unlink()

    def clear(self, known: set[str]) -> None:
        """At the start: remove what an earlier process left behind."""
        for path in self._folder.glob("??/*"):
            if path.name not in known:
                path.unlink()

    def close(self) -> None:
        """Called when nobody writes or reads any more; a transfer that was cut off may have left its file open."""
        for let_go in list(self.opened.values()):
            let_go()
        self._pool.shutdown()
