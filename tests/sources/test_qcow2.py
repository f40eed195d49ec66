"""qcow2 images, made and written by QEMU's own programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

from wavelift.blocks.errors import SourceError
from wavelift.sources.base import Consistency
from wavelift.sources.nbd import BitmapUnavailable
from wavelift.sources.qcow2 import Qcow2PointInTime, Qcow2Source

MIB = 1 << 20
SIZE = 8 * MIB + 512


def qemu_img(*arguments: str | Path) -> None:
    subprocess.run(["qemu-img", *arguments], check=True, stdout=subprocess.DEVNULL)


def write(path: Path, *commands: str) -> None:
    """qemu-io commands, such as `write -P 1 0 64k`."""
    chosen = [part for command in commands for part in ("-c", command)]
    subprocess.run(["qemu-io", "-f", "qcow2", *chosen, path], check=True, stdout=subprocess.DEVNULL)


def image(path: Path, *commands: str, options: str = "compat=1.1") -> Path:
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, path, str(SIZE))
    if commands:
        write(path, *commands)
    return path


def whole(opened: Qcow2PointInTime) -> bytes:
    found = bytearray(opened.size)
    opened.readinto(0, memoryview(found))
    return bytes(found)


def folders() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"wavelift-qcow2-{os.getpid()}-*"))


@pytest.mark.parametrize(
    "options", ["compat=0.10", "compat=1.1", "compat=1.1,cluster_size=4k", "compression_type=zstd"]
)
def test_content_and_holes(tmp_path: Path, options: str) -> None:
    path = image(tmp_path / "a, b: c", "write -P 7 1M 1M", "write -z 3M 1M", "write -P 9 8M 512", options=options)
    expected = tmp_path / "raw"
    qemu_img("convert", "-f", "qcow2", "-O", "raw", path, expected)
    opened = Qcow2Source(path).open()
    assert (opened.size, opened.consistency, opened.tracked) == (SIZE, Consistency.OFFLINE, False)
    assert whole(opened) == expected.read_bytes()
    extents = list(opened.extents())
    data = [(extent.start, extent.length) for extent in extents if not extent.zero]
    assert data[0] == (MIB, MIB) and data[1][0] == 8 * MIB and len(data) == 2
    assert all(extent.dirty for extent in extents) and sum(extent.length for extent in extents) == SIZE
    opened.close()
    assert folders() == []


def test_several_threads_read_at_once(tmp_path: Path) -> None:
    path = image(tmp_path / "a", *(f"write -P {n + 1} {n}M 1M" for n in range(8)))
    opened = Qcow2Source(path).open()
    found = bytearray(SIZE)

    def read(number: int) -> None:
        for at in range(number * MIB, SIZE, 4 * MIB):
            opened.readinto(at, memoryview(found)[at : at + MIB])

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    opened.close()
    assert found == b"".join(bytes([n + 1]) * MIB for n in range(8)) + bytes(512)


def test_the_token_is_the_files(tmp_path: Path) -> None:
    path = image(tmp_path / "a", "write -P 1 0 64k")
    first = Qcow2Source(path).open()
    first.close()
    second = Qcow2Source(path).open()
    assert second.token == first.token
    second.close()
    before = second.token
    write(path, "write -P 2 0 64k")
    third = Qcow2Source(path).open(before)
    assert third.token != before
    third.close()


def test_a_persistent_bitmap_tells_what_changed(tmp_path: Path) -> None:
    path = image(tmp_path / "a", "write -P 1 0 4M")
    qemu_img("bitmap", "--add", "-g", "65536", path, "daily")
    write(path, "write -P 2 128k 64k", "discard 2M 128k")
    first = Qcow2Source(path, "daily").open()
    assert not first.tracked and all(extent.dirty for extent in first.extents())
    first.close()
    opened = Qcow2Source(path, "daily").open("an earlier moment")
    assert opened.tracked
    dirty = [(extent.start, extent.length, extent.zero) for extent in opened.extents() if extent.dirty]
    assert dirty == [(128 << 10, 64 << 10, False), (2 * MIB, 128 << 10, True)]
    opened.close()
    with pytest.raises(BitmapUnavailable, match="weekly"):
        Qcow2Source(path, "weekly").open("an earlier moment")
    assert folders() == []


def test_an_image_that_names_other_files_is_refused(tmp_path: Path) -> None:
    base = image(tmp_path / "base", "write -P 1 0 64k")
    backed = tmp_path / "backed"
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", backed)
    external = image(tmp_path / "external", options=f"data_file={tmp_path}/data")
    for path, words in ((backed, "a backing file"), (external, "an external data file")):
        with pytest.raises(SourceError, match=words) as caught:
            Qcow2Source(path).open()
        assert caught.value.code == "unsupported_source" and "if you trust" in caught.value.remedy


def test_encrypted_damaged_and_missing_images_are_refused(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    secret = ["--object", "secret,id=s,data=x", "-o", "encrypt.format=aes,encrypt.key-secret=s"]
    qemu_img("create", "-q", "-f", "qcow2", *secret, locked, str(MIB))
    damaged = image(tmp_path / "damaged")
    with damaged.open("r+b") as file:
        file.seek(20)
        file.write(b"\xff\xff\xff\xff")
    (tmp_path / "short").write_bytes(b"QFI\xfb")
    for name, words in (
        ("locked", "is encrypted"),
        ("damaged", "cannot be served; qemu-nbd says: .*[Cc]luster size"),
        ("short", "no qcow2"),
        ("none", "No such file"),
    ):
        with pytest.raises(SourceError, match=words) as caught:
            Qcow2Source(tmp_path / name).open()
        assert str(tmp_path / name) in caught.value.message and caught.value.remedy
    assert folders() == []


def test_an_image_that_someone_writes_is_refused(tmp_path: Path) -> None:
    path = image(tmp_path / "a")
    with subprocess.Popen(["qemu-io", "-f", "qcow2", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        writer.stdin.write(b"length\n")
        writer.stdin.flush()
        writer.stdout.readline()
        with pytest.raises(SourceError, match="lock") as caught:
            Qcow2Source(path).open()
        assert "Stop the machine" in caught.value.remedy
        writer.stdin.close()


def test_a_server_that_dies_is_an_error_of_the_next_read(tmp_path: Path) -> None:
    opened = Qcow2Source(image(tmp_path / "a", "write -P 1 0 64k")).open()
    (server,) = (child for child in psutil.Process().children() if str(folders()[0]) in " ".join(child.cmdline()))
    server.kill()
    with pytest.raises(SourceError, match="cannot be"):
        opened.readinto(0, memoryview(bytearray(MIB)))
    opened.close()
    assert folders() == []


def test_the_server_ends_with_us_and_its_folder_with_the_next_opening(tmp_path: Path) -> None:
    path = image(tmp_path / "a")
    script = (
        "import sys, pathlib, time; from wavelift.sources.qcow2 import Qcow2Source;"
        "opened = Qcow2Source(pathlib.Path(sys.argv[1])).open(); print('open', flush=True); time.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"open\n"
        (server,) = psutil.Process(other.pid).children()
        (folder,) = Path(tempfile.gettempdir()).glob(f"wavelift-qcow2-{other.pid}-*")
        other.send_signal(signal.SIGKILL)
        other.wait()
    limit = time.monotonic() + 30
    while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < limit
        time.sleep(0.01)
    assert folder.exists()
    Qcow2Source(path).open().close()
    assert not folder.exists()
