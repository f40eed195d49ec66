"""cpio archives of the kind the kernel unpacks ("newc"): reader and writer.

Format: per file a header of "070701" and thirteen numbers of eight hexadecimal digits, the name with a NUL, the
content, each part padded to four bytes; the file named TRAILER!!! ends the archive. See the kernel's
Documentation/driver-api/early-userspace/buffer-format.rst.
"""

import stat
from collections.abc import Iterable
from dataclasses import dataclass, replace

MAGICS = (b"070701", b"070702")
_HEADER = 110
_TRAILER = "TRAILER!!!"


class CpioError(ValueError):
    """The bytes are not a cpio archive."""

    def __init__(self, offset: int, reason: str) -> None:
        self.offset = offset
        self.reason = reason
        super().__init__(f"cpio archive, offset {offset}: {reason}")


@dataclass(frozen=True)
class Entry:
    """One file of an archive."""

    name: str
    mode: int
    content: bytes = b""
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    inode: int = 0
    links: int = 1
    rdev: tuple[int, int] = (0, 0)

    @property
    def path(self) -> str:
        """The name as the kernel resolves it, from the root and without "./"."""
        return self.name.removeprefix("./").strip("/")


def file(name: str, content: bytes, mtime: int = 0) -> Entry:
    return Entry(name, stat.S_IFREG | 0o644, content, mtime=mtime)


def folder(name: str, mtime: int = 0) -> Entry:
    return Entry(name, stat.S_IFDIR | 0o755, mtime=mtime, links=2)


def write_archive(entries: Iterable[Entry]) -> bytes:
    """The archive of `entries`, trailer included."""
    parts = [_record(entry) for entry in entries]
    parts.append(_record(Entry(_TRAILER, 0)))
    return b"".join(parts)


def read_archive(data: bytes, offset: int = 0) -> tuple[list[Entry], int]:
    """The entries of the archive at `offset`, and the offset after it."""
    entries: list[Entry] = []
    while True:
        entry, offset = _read(data, offset)
        if entry.name == _TRAILER:
            return _linked(entries), offset
        entries.append(entry)


def _linked(entries: list[Entry]) -> list[Entry]:
    """Of several names for one file only the last has its content; here each has."""
    contents = {entry.inode: entry.content for entry in entries if entry.links > 1 and entry.content}
    return [
        replace(entry, content=contents[entry.inode])
        if entry.inode in contents and stat.S_ISREG(entry.mode) and entry.links > 1
        else entry
        for entry in entries
    ]


def _record(entry: Entry) -> bytes:
    name = entry.name.encode("utf-8", "surrogateescape") + b"\0"
    numbers = (
        *(entry.inode, entry.mode, entry.uid, entry.gid, entry.links, entry.mtime, len(entry.content)),
        *(0, 0, *entry.rdev, len(name), 0),
    )
    header = MAGICS[0] + b"".join(b"%08X" % number for number in numbers)
    return _padded(header + name) + _padded(entry.content)


def _read(data: bytes, offset: int) -> tuple[Entry, int]:
    header = data[offset : offset + _HEADER]
    if len(header) < _HEADER:
        raise CpioError(offset, "ends within a header")
    if header[:6] not in MAGICS:
        raise CpioError(offset, f"no header: {header[:6]!r}")
    try:
        numbers = [int(header[at : at + 8], 16) for at in range(6, _HEADER, 8)]
    except ValueError as error:
        raise CpioError(offset, "a number of the header is not hexadecimal") from error
    inode, mode, uid, gid, links, mtime, size, _, _, major, minor, name_size, _ = numbers
    name_at = offset + _HEADER
    content_at = offset + _aligned(_HEADER + name_size)
    end = content_at + _aligned(size)
    # the last record's padding may be missing
    if name_size < 1 or content_at + size > len(data):
        raise CpioError(offset, "ends within a file")
    name = data[name_at : name_at + name_size - 1].decode("utf-8", "surrogateescape")
    content = data[content_at : content_at + size]
    return Entry(name, mode, content, uid, gid, mtime, inode, links, (major, minor)), min(end, len(data))


def _aligned(size: int) -> int:
    return -(-size // 4) * 4


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (_aligned(len(data)) - len(data))
