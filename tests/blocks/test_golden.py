"""The golden files, read by the product and by a reader that knows only the document."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from wavelift.blocks.blockmap import MapStore, generation_root, segments_of
from wavelift.blocks.crypto import KeyEncryptionKey, KeyRing, MigrationKey
from wavelift.blocks.digest import BLOCK, SEGMENT, digests
from wavelift.blocks.pack import PackDisk, PackHeader, PackWriter

from . import reader as stranger
from .conftest import GOLDEN, GOLDEN_KEY, GOLDEN_WRAPPED, HEADER, TEXT, pattern, read, write

RING = KeyRing([KeyEncryptionKey(GOLDEN_KEY)])
MIXED = [
    ("sda", BLOCK, 3 * BLOCK, "zstd", TEXT * 3),
    ("sda", SEGMENT, SEGMENT, "zero", None),
    ("sda", 2 * SEGMENT, 512, "raw", pattern(512)),
    ("disk/2", BLOCK, 2 * BLOCK, "zstd", TEXT + bytes(BLOCK)),
    ("disk/2", 0, BLOCK, "raw", pattern(BLOCK)),
]
COPIES = [
    ("sda", 0, 2 * BLOCK, "copy", None),
    ("sda", 2 * BLOCK, BLOCK, "zero", None),
    ("sda", 3 * BLOCK, BLOCK, "raw", pattern(BLOCK)),
    ("sda", 3 * BLOCK, BLOCK, "copy", None),
]
ORIGINS = [("sda", 2 * BLOCK, 2), ("disk/2", BLOCK, 1)]
CONTENT = {
    "copy.pack": COPIES,
    "raw.pack": [
        ("sda", 0, BLOCK, "raw", pattern(BLOCK)),
        ("sda", BLOCK, 2 * BLOCK, "zero", None),
        ("sda", 4 * BLOCK, 512, "raw", pattern(512)),
    ],
    "zstd.pack": [("sda", 0, BLOCK, "zstd", TEXT)],
    "zero.pack": [("sda", 0, 4 * BLOCK, "zero", None), ("sda", 4 * BLOCK, 512, "zero", None)],
    "empty.pack": [],
    "mixed.pack": MIXED,
    "sealed.pack": MIXED,
    "sealed-empty.pack": [],
}


def copy_pack() -> bytes:
    """The golden pack with copy records, from the same disk and from another."""
    disks = (PackDisk("sda", "d-abc", 4 * BLOCK), PackDisk("disk/2", "d-def", 2 * BLOCK))
    writer = PackWriter(bytearray(1 << 20), PackHeader("web", 3, 18, disks))
    two, one = digests(memoryview(pattern(2 * BLOCK))), digests(memoryview(pattern(BLOCK)))
    writer.add_copy(0, 0, 2 * BLOCK, two, (0, 2 * BLOCK))
    writer.add_zero(0, 2 * BLOCK, BLOCK)
    view = writer.slot(BLOCK)
    view[:] = pattern(BLOCK)
    writer.add_data(0, 3 * BLOCK, view, one)
    writer.add_copy(0, 3 * BLOCK, BLOCK, one, (1, BLOCK))
    return bytes(writer.finish())


def test_no_golden_file_goes_unread() -> None:
    assert {path.name for path in GOLDEN.glob("*.pack")} == set(CONTENT)


def test_the_stranger_knows_nothing_of_the_product() -> None:
    tree = ast.parse(Path(stranger.__file__).read_text())
    froms = [node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert froms and names and not [name for name in froms + names if name.startswith(("wavelift", ".", "tests"))]


@pytest.mark.parametrize("name", sorted(CONTENT))
def test_product_and_stranger_read_the_same_from_each_golden_pack(name: str) -> None:
    data = (GOLDEN / name).read_bytes()
    ours, records = read(data, RING, copies=True)
    theirs = stranger.read_pack(data, GOLDEN_KEY)
    assert ours.sealed == name.startswith("sealed")
    assert theirs.header == {
        "migration": ours.header.migration,
        "generation": ours.header.generation,
        "sequence": ours.header.sequence,
        "disks": [{"disk": disk.disk, "volume": disk.volume, "size": disk.size} for disk in ours.header.disks],
    }
    ids = [disk.disk for disk in ours.header.disks]
    expected = CONTENT[name]
    assert [
        (
            ids[record.disk],
            record.offset,
            record.length,
            record.codec.name.lower(),
            None if record.origin is not None else content or None,
        )
        for record, content in records
    ] == expected
    assert [(*record[:4], record[4] or None) for record in theirs.records] == expected
    assert ours.totals is not None
    assert (ours.totals.records, ours.totals.bytes, ours.totals.data_bytes) == theirs.totals


def test_product_and_stranger_read_the_same_origins() -> None:
    data = (GOLDEN / "copy.pack").read_bytes()
    assert data[8:10] == b"\x02\x00"
    ours, records = read(data, copies=True)
    found = [
        (ours.header.disks[record.origin[0]].disk, record.origin[1], record.digests)
        for record, _ in records
        if record.origin is not None
    ]
    assert found == stranger.read_pack(data).copies
    assert found == [(disk, offset, digests(memoryview(pattern(count * BLOCK)))) for disk, offset, count in ORIGINS]


def test_the_writer_makes_the_golden_packs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those without zstd, whose bytes are its own affair."""
    zeroes: list[tuple[int, bytes | int]] = [(0, 4 * BLOCK), (4 * BLOCK, 512)]
    assert write(HEADER, zeroes) == (GOLDEN / "zero.pack").read_bytes()
    assert write(HEADER, []) == (GOLDEN / "empty.pack").read_bytes()
    assert copy_pack() == (GOLDEN / "copy.pack").read_bytes()
    monkeypatch.setattr(os, "urandom", lambda count: bytes(count))
    key = MigrationKey(KeyEncryptionKey(GOLDEN_KEY), GOLDEN_WRAPPED)
    assert write(HEADER, [], key=key) == (GOLDEN / "sealed-empty.pack").read_bytes()


@pytest.mark.parametrize(
    ("number", "blocks", "root", "generation"),
    [
        (
            1,
            {2 * SEGMENT: pattern(2 * BLOCK)},
            "a04887d04e89f64111a19a0d85c14cdd4a978b00477160868eed05a858557de9",
            "060221672c1c4c991a0bafaa8fb9dadf4ff67952faf5069cd757019e1f02689a",
        ),
        (
            2,
            {5 * BLOCK: TEXT, 2 * SEGMENT: pattern(2 * BLOCK)},
            "cd0fed25f5f3c187614972a6af43ddcdc00167257d2441863a8b62b122073c39",
            "e2132c88c7168759aeaf5047de5deeb937af0851aa8193718b1de030d34b2d10",
        ),
        (
            3,
            {2 * SEGMENT + BLOCK: TEXT, 2 * SEGMENT + 3 * BLOCK: pattern(512)},
            "72968e777273c6a743f116a3c40cf8e9c4a89a67e5976beb0ee118fb50cf0649",
            "e6351fc123bbdf2377cdc82efe60554c5047e5e84a0585759f674ce40f39234b",
        ),
    ],
)
def test_product_and_stranger_read_the_same_from_each_golden_map(
    number: int, blocks: dict[int, bytes], root: str, generation: str
) -> None:
    size = 2 * SEGMENT + 3 * BLOCK + 512
    ours = MapStore(GOLDEN / "maps").load(number)
    assert ours is not None
    table = b"".join(ours.table(segment) for segment in range(segments_of(size)))
    assert (ours.disk, ours.size, ours.root.hex()) == ("disk é", size, root)
    assert stranger.read_map(GOLDEN / "maps", number) == ("disk é", size, table, bytes.fromhex(root))
    expected = bytearray(len(table))
    for offset, content in blocks.items():
        found = digests(memoryview(content))
        expected[offset // BLOCK * 32 : offset // BLOCK * 32 + len(found)] = found
    assert table == expected
    both = {"disk é": ours.root, "b": bytes(32)}
    assert generation_root(both.items()) == stranger.generation_root(both)
    assert generation_root([("disk é", ours.root)]).hex() == generation


def test_the_stranger_refuses_damage_too() -> None:
    """Else agreeing with it would prove nothing."""
    for name in CONTENT:
        data = (GOLDEN / name).read_bytes()
        for place in range(0, len(data), 1 + len(data) // 60):
            bad = bytearray(data)
            bad[place] ^= 0x20
            with pytest.raises(Exception):  # noqa: B017  it has no reason to be kind about it
                stranger.read_pack(bytes(bad), GOLDEN_KEY)
