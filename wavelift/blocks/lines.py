"""Journals: files of checksummed JSON lines that are appended to. A torn tail is what a kill leaves, and is dropped."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any


def encode_line(line: dict[str, Any]) -> bytes:
    body = json.dumps(line, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines up to the first damaged one; none when there is no journal."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return []
    lines: list[dict[str, Any]] = []
    for piece in raw.split(b"\n")[:-1]:
        crc, _, body = piece.partition(b" ")
        if crc != b"%08x" % zlib.crc32(body):
            break
        lines.append(json.loads(body))
    return lines
