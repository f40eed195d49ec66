"""A reader of archives written from docs/format.md alone: it shares no line with the product."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path

from blake3 import blake3
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tests.blocks.reader import BLOCK, Bytes, block_digests, key_id, open_seal, read_map, read_pack, require

NAME = re.compile(r"([0-9a-f]{13})-([0-9a-f]+)-([0-9a-f]+)-([0-9a-f]{64})\.pack")
RECORD = {"version", "migration", "disk", "generation", "base", "base_root", "size", "root", "consistency", "packs"}
RECORD |= {"pack_bytes", "packs_digest", "made_at"}


class Archive:
    def __init__(self, folder: Path, master: bytes | None, scratch: Path) -> None:
        """`scratch`: an empty folder, for maps as they are when nothing seals them."""
        self.folder, self.scratch = folder, scratch
        about = json.loads((folder / "archive.json").read_bytes())
        require(set(about) == {"version", "id", "key", "origin"} and about["version"] == 2, "archive.json")
        self.key: bytes | None = None
        if about["key"] is not None:
            require(master, "the master key")
            info = b"wavelift archive key 1\0" + about["id"].encode()
            self.key = HKDF(SHA256(), 32, None, info).derive(master or b"")
            require(key_id(self.key).hex() == about["key"], "another key")

    def get(self, key: str) -> bytes:
        data = (self.folder / key).read_bytes()
        return data if self.key is None else open_seal(data, self.key)

    def record(self, number: int) -> dict[str, object]:
        crc, _, body = self.get(f"generations/{number}").partition(b" ")
        require(crc == b"%08x" % zlib.crc32(body), "CRC of the record")
        record: dict[str, object] = json.loads(body)
        require(set(record) == RECORD and record["version"] == 2, "keys of the record")
        require(record["generation"] == number, "another generation's record")
        return record

    def rows(self, record: dict[str, object]) -> list[tuple[int, int, int, int, bytes]]:
        source = Bytes(self.get(f"generations/{record['generation']}.packs"))
        require(blake3(source.data).hexdigest() == record["packs_digest"], "digest of the list")
        rows = []
        while not source.done():
            rows.append((*(source.number(8) for _ in range(4)), source.take(32)))
        require(len(rows) == record["packs"] and sum(row[3] for row in rows) == record["pack_bytes"], "the list")
        return rows  # type: ignore[return-value]

    def map(self, record: dict[str, object]) -> bytes:
        """The digests of all blocks."""
        (self.scratch / "segments").mkdir(exist_ok=True)
        number = int(str(record["generation"]))
        for path in (self.folder / "maps/segments").iterdir():
            (self.scratch / "segments" / path.name).write_bytes(self.get(f"maps/segments/{path.name}"))
        (self.scratch / f"{number}.map").write_bytes(self.get(f"maps/{number}.map"))
        disk, size, digests, root = read_map(self.scratch, number)
        require((disk, size, root.hex()) == (record["disk"], record["size"], record["root"]), "another map")
        return digests

    def content(self, number: int) -> bytes:
        record = self.record(number)
        wanted, size = self.map(record), int(str(record["size"]))
        found = bytearray(size)
        left = {at // 32 for at in range(0, len(wanted), 32) if any(wanted[at : at + 32])}
        while True:
            for sequence, first, blocks, length, digest in self.rows(record):
                name = f"{sequence:013x}-{first:x}-{blocks:x}-{digest.hex()}.pack"
                require(NAME.fullmatch(name), "the name of a pack")
                data = (self.folder / f"packs/{record['generation']}/{name}").read_bytes()
                require(len(data) == length and blake3(data).digest() == digest, "digest of a pack")
                pack = read_pack(data, self.key)
                require(pack.header["sequence"] == sequence, "another pack")
                for _, offset, span, _, plain in pack.records:
                    require(first <= offset // BLOCK and -(-(offset + span) // BLOCK) <= first + blocks, "its blocks")
                    table = block_digests(plain)
                    for at in range(0, len(table), 32):
                        block = offset // BLOCK + at // 32
                        if table[at : at + 32] == wanted[block * 32 : block * 32 + 32] and block in left:
                            part = plain[at // 32 * BLOCK : (at // 32 + 1) * BLOCK]
                            found[block * BLOCK : block * BLOCK + len(part)] = part
                            left.discard(block)
            if record["base"] is None:
                break
            before = self.record(int(str(record["base"])))
            require(before["root"] == record["base_root"], "another base")
            record = before
        require(not left, "blocks that are nowhere")
        return bytes(found)
