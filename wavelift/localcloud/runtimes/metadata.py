"""What a guest may ask at http://100.100.100.200/latest/.

QEMU runs this file as a program of its own for each connection, the socket being its standard input and output: so it
needs nothing but Python, and answers also while the cloud is down.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

ROOT = "/latest/"
LONGEST = 16 * 1024


def answer(values: Mapping[str, str], path: str) -> str | None:
    """A value, or the names below a folder; None for what is not there."""
    wanted = path.partition("?")[0].removeprefix(ROOT)
    if not path.startswith(ROOT):
        return None
    if wanted in values:
        return values[wanted]
    folder = wanted if not wanted or wanted.endswith("/") else f"{wanted}/"
    below = [name.removeprefix(folder) for name in values if name.startswith(folder)]
    entries = dict.fromkeys(first + slash for first, slash, _ in (name.partition("/") for name in below))
    return "\n".join(entries) if entries else None


def serve(values: Mapping[str, str], source: BinaryIO, sink: BinaryIO) -> None:
    words = source.readline(LONGEST).decode("latin-1").split()
    while source.readline(LONGEST).strip():
        pass
    text = answer(values, words[1]) if len(words) > 1 and words[0] in {"GET", "HEAD"} else None
    body = (text if text is not None else "404 - Not Found").encode()
    status = "200 OK" if text is not None else "404 Not Found"
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    sink.write(head.encode() + (b"" if words and words[0] == "HEAD" else body))
    sink.flush()


if __name__ == "__main__":
    serve(json.loads(Path(sys.argv[1]).read_text()), sys.stdin.buffer, sys.stdout.buffer)
