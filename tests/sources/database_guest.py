"""Runs inside a machine: two databases, each on a disk and a file system of its own, under steady writes.

Transaction N is committed to the first, then to the second, then N + 1 begins: at any one instant the first is ahead
by one at most. The console says which was committed last.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

FOLDERS = (Path("/tmp/first"), Path("/tmp/second"))
KEPT = 400


def connect(folder: Path, mode: str) -> sqlite3.Connection:
    database = sqlite3.connect(folder / "database", isolation_level=None)
    database.execute(f"PRAGMA journal_mode={mode}")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE IF NOT EXISTS entry (number INTEGER PRIMARY KEY, content BLOB)")
    database.execute("CREATE INDEX IF NOT EXISTS by_content ON entry (content)")
    return database


def main(devices: list[str]) -> None:
    for device, folder, kind in zip(devices, FOLDERS, ("ext4", "xfs"), strict=True):
        folder.mkdir()
        subprocess.run(["mount", "-t", kind, device, folder], check=True)
    (channel,) = Path("/dev").glob("vport*p1")
    with subprocess.Popen(["qemu-ga", "-m", "virtio-serial", "-p", channel, "-t", "/run"]):
        databases = [connect(FOLDERS[0], "WAL"), connect(FOLDERS[1], "TRUNCATE")]
        number = 0
        while True:
            number += 1
            for database in databases:
                database.execute("BEGIN")
                database.execute("INSERT INTO entry VALUES (?, ?)", (number, os.urandom(3000)))
                database.execute("DELETE FROM entry WHERE number = ?", (number - KEPT,))
                database.execute("COMMIT")
            print(f"committed {number}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
