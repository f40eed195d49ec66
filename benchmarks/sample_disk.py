"""The disk that the engine's benchmarks copy: the same bytes from the same seed, on any machine.

What a server's disk holds, roughly: machine code, a database's rows, text, and what is compressed already, in runs
of all sizes with holes between them. No 4 KiB page comes twice, so that no tool gains by finding it again;
zstd at level 1 makes about 0.6 of it.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path

PAGE = 4096
BLOCK = 64 * 1024
MIB = 1 << 20
POOL = 16 * MIB
DATA_SHARE = 3 / 8
# How much of the data is of which kind.
_SHARES = {"code": 0.40, "rows": 0.25, "text": 0.15, "noise": 0.20}


def build(path: Path, size: int, seed: int = 1, data: int | None = None) -> None:
    """A sparse raw disk of `size` bytes, `data` of them (3/8 unless said) no holes."""
    layout, stamps = random.Random(seed), random.Random(seed + 1)
    pools = {"code": _code(stamps), "rows": _rows(stamps), "text": _text(stamps)}
    with path.open("wb", buffering=0) as file:
        file.truncate(size)
        for start, length in _runs(layout, size, int(size * DATA_SHARE) if data is None else data):
            kind = layout.choices(list(_SHARES), list(_SHARES.values()))[0]
            for at in range(start, start + length, MIB):
                part = min(MIB, start + length - at)
                os.pwrite(file.fileno(), _piece(pools.get(kind), part, layout, stamps), at)
        os.fsync(file.fileno())


def change(path: Path, share: float, seed: int) -> int:
    """Write anew so much of all the disk's 64 KiB blocks, at random places among the data; bytes changed."""
    with path.open("r+b", buffering=0) as file:
        places = change_places(path, share, seed)
        for at, table in places:
            os.pwrite(file.fileno(), os.pread(file.fileno(), BLOCK, at).translate(table), at)
        os.fsync(file.fileno())
    return len(places) * BLOCK


def change_places(path: Path, share: float, seed: int) -> list[tuple[int, bytes]]:
    """(block's first byte, table to translate it by): other content that compresses as the old one did."""
    source = random.Random(seed)
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        blocks = [at for at in range(0, size - BLOCK + 1, BLOCK) if _is_data(file.fileno(), at)]
    tables = [bytes((value + step) % 256 for value in range(256)) for step in range(1, 256)]
    chosen = source.sample(blocks, min(len(blocks), round(size / BLOCK * share)))
    return [(at, source.choice(tables)) for at in chosen]


def _is_data(fd: int, at: int) -> bool:
    try:
        return os.lseek(fd, at, os.SEEK_DATA) == at
    except OSError:  # nothing but a hole up to the end
        return False


def _piece(pool: bytes | None, length: int, layout: random.Random, stamps: random.Random) -> bytes:
    if pool is None:
        return stamps.randbytes(length)
    place = layout.randrange(0, POOL - length)
    piece = bytearray(pool[place : place + length])
    unlike = stamps.randbytes(length // PAGE * 16)
    for page in range(length // PAGE):
        # As a database's page number and checksum do, this makes each page unlike all others.
        piece[page * PAGE : page * PAGE + 16] = unlike[page * 16 : page * 16 + 16]
    return bytes(piece)


def _runs(layout: random.Random, size: int, data: int) -> Iterator[tuple[int, int]]:
    """(start, length) in whole pages; most files are small, most bytes are in large ones."""
    at, left = 0, data // PAGE * PAGE
    while left > 0:
        length = min(int(layout.lognormvariate(12.5, 2)) // PAGE * PAGE + PAGE, 64 * MIB, left)
        yield at, length
        left -= length
        # On average the holes are as large as they must be for the data to end where the disk does.
        room = (size - at - length) - left
        hole = int(room * length / (left + length) * layout.expovariate(1)) // PAGE * PAGE
        at += length + min(max(PAGE, hole), room // PAGE * PAGE)


def _code(source: random.Random) -> bytes:
    """Short sequences, some of them much more common than others, as instructions are."""
    return _of_words(source, [source.randbytes(source.randint(2, 8)) for _ in range(4096)], 1.1)


def _text(source: random.Random) -> bytes:
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    often = [0.88**place for place in range(26)]
    words = ["".join(source.choices(letters, often, k=source.randint(2, 11))).encode() + b" " for _ in range(20000)]
    return _of_words(source, words, 1.0)


def _rows(source: random.Random) -> bytes:
    """Rows of a table: keys, words that repeat, values that do not."""
    row = b"%012d|customer|%s|open|"
    return b"".join(row % (source.getrandbits(39), source.randbytes(16)) for _ in range(POOL // 44 + 1))[:POOL]


def _of_words(source: random.Random, words: list[bytes], skew: float) -> bytes:
    often = [1 / (place + 1) ** skew for place in range(len(words))]
    mean = sum(len(word) * weight for word, weight in zip(words, often, strict=True)) / sum(often)
    picked = source.choices(words, often, k=int(1.1 * POOL / mean))
    return b"".join(picked)[:POOL]
