"""What a hydration has to do and has done, in a folder of its own: a job that was killed goes on from it.

`segments` has the tables of the wanted map that are needed, `plan` the blocks to write; the journal, written after
both, says in its first line what they are for, and in the others what of it is durable in the target.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from blake3 import blake3

from wavelift.blocks.blockmap import DiskMap, FolderTables, segment_digest
from wavelift.blocks.compare import Tables
from wavelift.blocks.errors import MapError
from wavelift.blocks.files import write_durably, write_whole
from wavelift.blocks.lines import encode_line, read_lines
from wavelift.hydrate.plan import Left, plan

VERSION = 1
# A pack: its generation, and its number in the list of that.
Pack = tuple[int, int]


@dataclass(frozen=True)
class Subject:
    """What a journal speaks of: the archive's id, the root that is wanted and the one that the target held (hex, None
    where it holds nothing of use), and a `mark` of the target that changes when anybody else writes to it."""

    archive: str
    root: str
    base_root: str | None
    mark: str


class Work:
    """`left` is what is not durable yet, `done` the packs that nothing more is wanted of; `wire_bytes` were fetched,
    `written_bytes` written, in this attempt and the former ones. `wanted` has the tables of what was to be written."""

    def __init__(self, folder: Path, subject: Subject, wanted: DiskMap, left: Left) -> None:
        self.subject = subject
        self.wanted = DiskMap(wanted.disk, wanted.size, wanted.segments, FolderTables(_tables(folder)))
        self.left = left
        self.done: set[Pack] = set()
        self.wire_bytes = self.written_bytes = 0
        self._folder = folder
        self._lock = threading.Lock()
        self._fd: int | None = None

    @classmethod
    def resume(cls, folder: Path, subject: Subject, wanted: DiskMap) -> Work | None:
        """What a former attempt left; None where there is none, or it is of something else, or damaged."""
        lines = read_lines(folder / "journal")
        if not lines or {**lines[0], "plan": ""} != _about(subject, ""):
            return None
        try:
            bits = (folder / "plan").read_bytes()
        except FileNotFoundError:
            return None
        if blake3(bits).hexdigest() != lines[0]["plan"]:
            return None
        work = cls(folder, subject, wanted, Left.decode(wanted.size, bits))
        try:
            for number in work.left.segments():
                work.wanted.table(number)
        except MapError:
            return None
        for line in lines[1:]:
            work._apply(None if line["pack"] is None else (line["pack"][0], line["pack"][1]), line["ranges"])
            work.wire_bytes += line["wire"]
        # Rewritten at once: that drops a torn tail, which must not stand in front of new lines.
        write_durably(folder / "journal", b"".join(map(encode_line, lines)))
        work._open()
        return work

    @classmethod
    def begin(
        cls,
        folder: Path,
        subject: Subject,
        wanted: DiskMap,
        base: Tables | None,
        zeroed: bool,
        check: Callable[[], None],
    ) -> Work:
        """Anew, in place of what was there. Raises as `plan` does, OSError."""
        shutil.rmtree(folder, ignore_errors=True)
        _tables(folder).mkdir(parents=True, mode=0o700)
        made = plan(wanted, base, zeroed, check, lambda table: _keep(_tables(folder), table))
        bits = made.encode()
        write_durably(folder / "plan", bits)
        write_durably(folder / "journal", encode_line(_about(subject, blake3(bits).hexdigest())))
        work = cls(folder, subject, wanted, made)
        work._open()
        return work

    def note(self, pack: Pack | None, ranges: Sequence[tuple[int, int]], wire: int) -> None:
        """These bytes, (start, end), are durable in the target; nothing more is wanted of the pack, if one is named,
        and `wire` bytes were fetched. Durable on return; from any thread. Raises OSError."""
        with self._lock:
            assert self._fd is not None
            write_whole(self._fd, encode_line({"pack": pack, "ranges": ranges, "wire": wire}))
            os.fdatasync(self._fd)
            self._apply(pack, ranges)

    def fetched(self, count: int) -> None:
        """So many bytes came, whatever becomes of them."""
        with self._lock:
            self.wire_bytes += count

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def discard(self) -> None:
        """Nobody goes on from here."""
        self.close()
        shutil.rmtree(self._folder)

    def _open(self) -> None:
        self._fd = os.open(self._folder / "journal", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def _apply(self, pack: Pack | None, ranges: Sequence[tuple[int, int]]) -> None:
        before = self.left.bytes
        for start, end in ranges:
            self.left.discard(start, end)
        self.written_bytes += before - self.left.bytes
        if pack is not None:
            self.done.add(pack)


def marked(folder: Path) -> str | None:
    """The mark of the target that a journal speaks of; None where there is none."""
    lines = read_lines(folder / "journal")
    return str(lines[0].get("mark")) if lines else None


def _about(subject: Subject, plan_digest: str) -> dict[str, object]:
    return {"version": VERSION, **asdict(subject), "plan": plan_digest}


def _tables(folder: Path) -> Path:
    return folder / "segments"


def _keep(folder: Path, table: bytes) -> None:
    name = segment_digest(table)
    if any(name):
        write_durably(folder / name.hex(), table)
