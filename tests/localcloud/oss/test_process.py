"""The object store as a process of its own: how much memory it takes, and what is there after it was killed."""

import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import oss2
import pytest
from fastcrc import crc64

KEY, SECRET = "LOCALTEST", "a secret for tests"
MIB = 1 << 20
PART = 100 * 1024


class Process:
    def __init__(self, state: Path) -> None:
        self.state = state
        command = [sys.executable, "-m", "wavelift.localcloud.command", "--state", str(state)]
        with (state / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--access-key", f"{KEY}:{SECRET}"], stdout=subprocess.PIPE, stderr=log
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, (state / "log").read_text()
        self.endpoint = json.loads(line)["oss_endpoint"]

    def bucket(self) -> oss2.Bucket:
        auth = oss2.AuthV4(KEY, SECRET)
        url = f"http://{self.endpoint}"
        return oss2.Bucket(auth, url, "here", region="cn-local", session=oss2.Session(), enable_crc=False)

    def peak(self) -> int:
        """The most memory it ever had, in bytes."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise AssertionError

    def end(self, how: signal.Signals) -> None:
        self._process.send_signal(how)
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    started = Process(tmp_path)
    started.bucket().create_bucket()
    yield started
    started.end(signal.SIGTERM)


def test_large_objects_in_little_memory(process: Process, tmp_path: Path) -> None:
    source = tmp_path / "source"
    pattern = b"x" + bytes(MIB - 1)
    with source.open("wb") as file:
        for number in range(256):
            file.seek(number * MIB)
            file.write(b"x")
        file.truncate(256 * MIB)
    bucket = process.bucket()
    bucket.put_object("small", bytes(4 * MIB))
    bucket.get_object("small").read()
    before = process.peak()
    with source.open("rb") as file:
        bucket.put_object("large", file)
    size = 0
    for chunk in (got := bucket.get_object("large")):
        size += len(chunk)
    assert size == 256 * MIB
    check = 0
    for _ in range(256):
        check = crc64.xz(pattern, check)
    assert got.server_crc == check
    assert process.peak() - before < 32 * MIB


def test_killed_while_uploads_run(tmp_path: Path) -> None:
    """Whatever was acknowledged is there, whatever is there is whole, and nothing else takes room."""
    process = Process(tmp_path)
    process.bucket().create_bucket()
    acknowledged: dict[str, int] = {}
    enough = threading.Semaphore(0)

    def put(thread: int) -> None:
        bucket = process.bucket()
        for number in itertools.count():
            content = os.urandom(300_000 + number)
            bucket.put_object(f"put/{thread}", content)
            acknowledged[f"put/{thread}"] = number
            enough.release()

    def parts(thread: int) -> None:
        bucket = process.bucket()
        for number in itertools.count():
            key = f"parts/{thread}/{number}"
            upload = bucket.init_multipart_upload(key).upload_id
            for part in (1, 2):
                bucket.upload_part(key, upload, part, os.urandom(PART))
            bucket.complete_multipart_upload(key, upload, None, headers={"x-oss-complete-all": "yes"})
            acknowledged[key] = 2 * PART
            enough.release()

    def append(thread: int) -> None:
        bucket, length = process.bucket(), 0
        for number in itertools.count():
            length = bucket.append_object(f"log/{thread}", length, os.urandom(50_000 + number)).next_position
            acknowledged[f"log/{thread}"] = length
            enough.release()

    def until_it_ends(run: object, thread: int) -> None:
        with pytest.raises(oss2.exceptions.RequestError):
            run(thread)  # type: ignore[operator]

    threads = [threading.Thread(target=until_it_ends, args=(run, n)) for n in (1, 2) for run in (put, parts, append)]
    for each in threads:
        each.start()
    for _ in range(60):
        assert enough.acquire(timeout=20)
    process.end(signal.SIGKILL)
    for each in threads:
        each.join(20)

    process = Process(tmp_path)
    try:
        bucket = process.bucket()
        found = {each.key: each for each in oss2.ObjectIteratorV2(bucket)}
        assert set(acknowledged) <= set(found)
        for key in found:
            got = bucket.get_object(key)
            assert crc64.xz(got.read()) == got.server_crc
        for key, value in acknowledged.items():
            least = 300_000 + value if key.startswith("put/") else value
            assert found[key].size >= least
            if key.startswith("log/"):
                bucket.append_object(key, found[key].size, b"goes on")
        left = [each.key for each in oss2.MultipartUploadIterator(bucket)]
        assert all(key.startswith("parts/") for key in left)
        with closing(sqlite3.connect(tmp_path / "oss" / "index.sqlite")) as index:
            known = {row[0] for row in index.execute("SELECT blob FROM piece")}
        assert {path.name for path in (tmp_path / "oss" / "data").glob("??/*")} == known
    finally:
        process.end(signal.SIGTERM)
