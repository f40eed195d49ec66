"""Registry hives written from nothing, by the published layout of their format: one bin, each list of keys as `lh`."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from wavelift.guest.windows.hive import Hive, Value

# A key: its values by name, and the keys in it, told apart by their kind.
Tree = Mapping[str, "Value | Tree"]
_NONE = 0xFFFFFFFF
_ROOT_FLAGS = 0x2C
_KEY_FLAGS = 0x20
_TIME = 130_000_000_000_000_000


class _Bin:
    """Cells after the header of the one bin; offsets count from the bin's begin."""

    def __init__(self) -> None:
        self.data = bytearray(32)

    def add(self, cell: bytes) -> int:
        offset = len(self.data)
        size = (len(cell) + 4 + 7) // 8 * 8
        self.data += struct.pack("<i", -size) + cell.ljust(size - 4, b"\0")
        return offset

    def put(self, offset: int, at: int, number: int) -> None:
        struct.pack_into("<I", self.data, offset + 4 + at, number)


def write(tree: Tree) -> bytes:
    cells = _Bin()
    # Self-relative, without owner or list: everybody may do everything.
    descriptor = struct.pack("<BBHIIII", 1, 0, 0x8000, 0, 0, 0, 0)
    security = cells.add(struct.pack("<2sHIIII", b"sk", 0, 0, 0, 1, len(descriptor)) + descriptor)
    cells.put(security, 4, security)
    cells.put(security, 8, security)
    root = _key(cells, "ROOT", tree, _NONE, security, _ROOT_FLAGS)
    free = -len(cells.data) % 4096
    if free:
        cells.data += struct.pack("<i", free) + bytes(free - 4)
    struct.pack_into("<4sIIIIQI", cells.data, 0, b"hbin", 0, len(cells.data), 0, 0, _TIME, 0)
    base = bytearray(4096)
    struct.pack_into("<4sIIQIIIIIII", base, 0, b"regf", 7, 7, _TIME, 1, 5, 0, 1, root, len(cells.data), 1)
    checksum = 0
    for (word,) in struct.iter_unpack("<I", base[:508]):
        checksum ^= word
    struct.pack_into("<I", base, 508, checksum)
    return bytes(base + cells.data)


def _key(cells: _Bin, name: str, tree: Tree, parent: int, security: int, flags: int) -> int:
    keys = {each: value for each, value in tree.items() if not isinstance(value, Value)}
    values = {each: value for each, value in tree.items() if isinstance(value, Value)}
    encoded = name.encode("ascii")
    head = struct.pack(
        "<2sHQIIIIIIIIII",
        b"nk",
        flags,
        _TIME,
        0,
        parent,
        len(keys),
        0,
        _NONE,
        _NONE,
        len(values),
        _NONE,
        security,
        _NONE,
    )
    head += struct.pack("<IIIIIHH", 0, 0, 0, 0, 0, len(encoded), 0)
    offset = cells.add(head + encoded)
    if values:
        listed = [_value(cells, each, value) for each, value in values.items()]
        cells.put(offset, 40, cells.add(struct.pack(f"<{len(listed)}I", *listed)))
    if keys:
        ordered = sorted(keys, key=str.upper)
        children = [(_key(cells, each, keys[each], offset, security, _KEY_FLAGS), _hash(each)) for each in ordered]
        flat = [number for child in children for number in child]
        cells.put(offset, 28, cells.add(struct.pack(f"<2sH{len(flat)}I", b"lh", len(children), *flat)))
    return offset


def _value(cells: _Bin, name: str, value: Value) -> int:
    encoded = name.encode("ascii")
    if len(value.data) <= 4:
        size, data = len(value.data) | 0x80000000, int.from_bytes(value.data, "little")
    else:
        size, data = len(value.data), cells.add(value.data)
    cell = struct.pack("<2sHIIIHH", b"vk", len(encoded), size, data, int(value.kind), 1 if encoded else 0, 0)
    return cells.add(cell + encoded)


def _hash(name: str) -> int:
    total = 0
    for letter in name.upper():
        total = (total * 37 + ord(letter)) & 0xFFFFFFFF
    return total


def values_of(hive: bytes, path: str = "hive") -> dict[tuple[str, str], Value]:
    """Every value of a hive by key and name, to compare all of two hives with each other."""
    opened = Hive(hive, path)
    found: dict[tuple[str, str], Value] = {}

    def walk(key: str) -> None:
        for name, value in opened.values(key).items():
            found[key, name] = value
        for each in opened.keys(key):
            walk(f"{key}\\{each}" if key else each)

    walk("")
    return found
