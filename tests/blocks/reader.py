"""A reader of packs and block maps written from docs/format.md alone: it shares no line with the product."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap

BLOCK = 65536


class Refused(Exception):
    """The bytes are not what the document says."""


def require(condition: object, what: str) -> None:
    if not condition:
        raise Refused(what)


@dataclass
class Pack:
    header: dict[str, object]
    # disk id, offset, length, codec, content (none for a zero record)
    records: list[tuple[str, int, int, str, bytes]]
    # for each copy record in turn: disk id and offset to copy from, and the digests to find there
    copies: list[tuple[str, int, bytes]]
    totals: tuple[int, int, int]


class Bytes:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        piece = self.data[self.at : self.at + count]
        require(len(piece) == count, "too short")
        self.at += count
        return piece

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def done(self) -> bool:
        return self.at == len(self.data)


def block_digests(content: bytes) -> bytes:
    blocks = [content[at : at + BLOCK] for at in range(0, len(content), BLOCK)]
    return b"".join(blake3(block).digest() if block != bytes(len(block)) else bytes(32) for block in blocks)


def key_id(key: bytes) -> bytes:
    return blake3(b"wavelift key id 1\0" + key).digest()[:16]


def open_seal(data: bytes, wrapping_key: bytes) -> bytes:
    """The plain pack within a sealed one."""
    source = Bytes(data)
    source.take(12)
    require(source.number(4) == 104, "envelope")
    crc, body = source.number(4), Bytes(source.take(104))
    require(zlib.crc32(body.data) == crc, "CRC of the head")
    name, wrapping, wrapped, nonce = body.take(16), body.take(16), body.take(40), body.take(32)
    require(key_id(wrapping_key) == wrapping, "another key-encryption key")
    key = aes_key_unwrap(wrapping_key, wrapped)
    require(key_id(key) == name, "id of the key")
    cipher = AESGCM(HKDF(SHA256(), 32, nonce, b"wavelift pack key 1\0").derive(key))
    plain, number, last = b"", 0, False
    while not last:
        word = source.number(4)
        last, length = bool(word >> 31), word & 0x7FFFFFFF
        require(1 <= length <= 65536 or (length == number == 0 and last), "length of a frame")
        frame_nonce = struct.pack("<Q", number) + bytes(3) + bytes([last])
        plain += cipher.decrypt(frame_nonce, source.take(length + 16), data[:124])
        number += 1
    require(source.done(), "something after the last frame")
    return plain


def read_pack(data: bytes, wrapping_key: bytes | None = None) -> Pack:
    require(len(data) <= 256 << 20, "size of the pack")
    source = Bytes(data)
    require(source.take(8) == b"WLPACK\r\n", "magic")
    version, flags = source.number(2), source.number(2)
    require(version in (1, 2), "version")
    require(flags == 0 or version == 1, "version of a seal")
    if flags == 1 and wrapping_key is not None:
        return read_pack(open_seal(data, wrapping_key))
    require(flags == 0, "flags")
    length, crc = source.number(4), source.number(4)
    require(length <= 65536, "length of the JSON")
    body = source.take(length)
    require(zlib.crc32(body) == crc, "CRC of the JSON")
    header = json.loads(body.decode())
    require(set(header) == {"migration", "generation", "sequence", "disks"}, "keys of the JSON")
    require(1 <= len(header["disks"]) <= 64, "number of disks")
    require(len({disk["disk"] for disk in header["disks"]}) == len(header["disks"]), "a disk twice")
    for disk in header["disks"]:
        require(set(disk) == {"disk", "volume", "size"} and disk["size"] % 512 == 0, "a disk")
    pack = Pack(header, [], [], (0, 0, 0))
    while (mark := source.take(4)) == b"RECD":
        require(len(pack.records) < 65536, "number of records")
        pack.records.append(read_record(source, header["disks"], pack.copies if version == 2 else None))
    require(mark == b"DONE", "mark")
    start = source.at - 4
    pack.totals = (source.number(4), source.number(8), source.number(8))
    require(source.number(4) == 0, "reserved")
    require(zlib.crc32(data[start : start + 28]) == source.number(4), "CRC of the end")
    covered = sum(record[2] for record in pack.records)
    full = sum(record[2] for record in pack.records if record[3] in ("raw", "zstd"))
    require(pack.totals == (len(pack.records), covered, full), "totals")
    require(source.done(), "something after the end")
    return pack


def read_record(
    source: Bytes, disks: list[dict[str, object]], copies: list[tuple[str, int, bytes]] | None
) -> tuple[str, int, int, str, bytes]:
    start = source.at - 4
    codec, reserved, index = source.number(1), source.number(1), source.number(2)
    offset, length, size, crc = source.number(8), source.number(8), source.number(4), source.number(4)
    require(codec in (0, 1, 2) or (codec == 3 and copies is not None), "codec")
    require(reserved == 0, "reserved")
    require(0 < length <= (1 << 30 if codec == 1 else 1 << 20), "length")
    table = b"" if codec == 1 else source.take(-(-length // BLOCK) * 32)
    origin = Bytes(source.take(16) if codec == 3 else b"")
    require(zlib.crc32(source.data[start : start + 28] + table + origin.data) == crc, "CRC of a record")
    require(index < len(disks), "disk")
    disk = disks[index]
    end = int(str(disk["size"]))
    require(offset % BLOCK == 0 and offset + length <= end, "place")
    require(length % BLOCK == 0 or offset + length == end, "partial block")
    if codec == 3 and copies is not None:
        there, zeroes, at = origin.number(2), origin.take(6), origin.number(8)
        require(size == 16 and not any(zeroes) and there < len(disks) and at % BLOCK == 0, "origin")
        require(at + length <= int(str(disks[there]["size"])), "end of the origin")
        copies.append((str(disks[there]["disk"]), at, table))
        return str(disk["disk"]), offset, length, "copy", b""
    payload = source.take(size)
    if codec == 1:
        require(size == 0, "payload of a zero record")
        return str(disk["disk"]), offset, length, "zero", b""
    if codec == 0:
        content = payload
    else:
        require(0 < size < length, "payload length")
        frame = zstandard.get_frame_parameters(payload)
        require(frame.content_size == length and frame.window_size <= 1 << 20 and frame.dict_id == 0, "frame")
        content = zstandard.ZstdDecompressor().decompress(payload, allow_extra_data=False)
    require(len(content) == length and block_digests(content) == table, "digests")
    return str(disk["disk"]), offset, length, "raw" if codec == 0 else "zstd", content


def read_map(folder: Path, number: int) -> tuple[str, int, bytes, bytes]:
    """(disk id, size, all block digests, disk root) of a generation."""
    data = (folder / f"{number}.map").read_bytes()
    source = Bytes(data)
    require(source.take(8) == b"WLMAP\r\n\0", "magic")
    require(source.number(2) == 1 and source.number(2) == 0, "version")
    name_length, size, count = source.number(4), source.number(8), source.number(8)
    require(name_length <= 1024 and count == -(-size // (1 << 30)), "sizes")
    name, segments = source.take(name_length).decode(), source.take(32 * count)
    require(zlib.crc32(data[: source.at]) == source.number(4) and source.done(), "CRC")
    digests = b""
    for place in range(count):
        blocks = -(-min(1 << 30, size - (place << 30)) // BLOCK)
        segment = segments[place * 32 : (place + 1) * 32]
        table = bytes(blocks * 32)
        if any(segment):
            table = (folder / "segments" / segment.hex()).read_bytes()
            require(len(table) == blocks * 32 and blake3(table).digest() == segment, "table")
        digests += table
    return name, size, digests, blake3(b"wavelift disk 1\0" + struct.pack("<Q", size) + segments).digest()


def generation_root(disks: dict[str, bytes]) -> bytes:
    joined = b"".join(
        struct.pack("<I", len(name.encode())) + name.encode() + root for name, root in sorted(disks.items())
    )
    return blake3(b"wavelift generation 1\0" + joined).digest()


def disk_root(path: Path, size: int) -> bytes:
    """The root of the first bytes of a file."""
    segments = b""
    with path.open("rb") as file:
        for start in range(0, size, 1 << 30):
            left = min(1 << 30, size - start)
            table = b""
            while left:
                content = file.read(min(left, 1 << 20))
                require(content, "too short")
                table += block_digests(content)
                left -= len(content)
            segments += blake3(table).digest() if any(table) else bytes(32)
    return blake3(b"wavelift disk 1\0" + struct.pack("<Q", size) + segments).digest()
