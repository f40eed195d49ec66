"""Block devices: loop devices of this machine's kernel, read, written beside, mounted, resized."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import threading
from pathlib import Path

import pytest

from wavelift.blocks.errors import SourceError
from wavelift.sources.base import Consistency, Extent
from wavelift.sources.device import DevicePointInTime, DeviceSource

from .conftest import LoopDevice

MIB = 1 << 20
SIZE = 5 * MIB + 512


def content(size: int = SIZE) -> bytes:
    return random.Random(size).randbytes(size)


def disk(path: Path, size: int = SIZE) -> Path:
    path.write_bytes(content(size))
    return path


def whole(opened: DevicePointInTime) -> bytes:
    found = bytearray(opened.size)
    opened.readinto(0, memoryview(found))
    return bytes(found)


def test_all_of_a_device_is_read_in_pieces_of_any_size_by_several_threads(
    tmp_path: Path, loop_device: LoopDevice
) -> None:
    data = content()
    opened = DeviceSource(loop_device(disk(tmp_path / "disk"))).open()
    assert opened.size == SIZE and list(opened.extents()) == [Extent(0, SIZE, dirty=True, zero=False)]
    found = bytearray(SIZE)
    # Pieces that begin and end anywhere, some longer than a buffer.
    cuts = sorted({0, SIZE, *random.Random(1).sample(range(SIZE), 12)})
    pieces = list(itertools.pairwise(cuts))

    def read(mine: list[tuple[int, int]]) -> None:
        for start, end in mine:
            opened.readinto(start, memoryview(found)[start:end])

    threads = [threading.Thread(target=read, args=(pieces[number::3],)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == data
    with pytest.raises(SourceError, match="before its size"):
        opened.readinto(SIZE - 100, memoryview(bytearray(101)))
    opened.close()


def test_a_device_that_nobody_uses_is_offline_and_keeps_its_token(tmp_path: Path, loop_device: LoopDevice) -> None:
    device = loop_device(disk(tmp_path / "disk"))
    first = DeviceSource(device).open()
    whole(first)
    assert first.consistency is Consistency.OFFLINE and first.notes == ()
    first.close()
    second = DeviceSource(device).open()
    assert second.token == first.token
    second.close()


def test_a_write_makes_another_token_and_the_moment_is_gone(tmp_path: Path, loop_device: LoopDevice) -> None:
    device = loop_device(disk(tmp_path / "disk"))
    opened = DeviceSource(device).open()
    with device.open("r+b") as file:
        file.seek(MIB)
        file.write(b"changed")
        file.flush()
        # In the page cache alone, and yet what is read is what a reader of the device would get.
        assert whole(opened)[MIB : MIB + 7] == b"changed"
    assert opened.consistency is Consistency.MOVING
    opened.close()
    again = DeviceSource(device).open()
    assert again.token != opened.token and again.consistency is Consistency.OFFLINE
    again.close()


def test_what_was_written_to_the_page_cache_before_does_not_disturb_the_moment(
    tmp_path: Path, loop_device: LoopDevice
) -> None:
    device = loop_device(disk(tmp_path / "disk"))
    writer = os.open(device, os.O_RDWR)
    os.pwrite(writer, b"before", 0)
    opened = DeviceSource(device).open()
    assert whole(opened)[:6] == b"before" and opened.consistency is Consistency.OFFLINE
    opened.close()
    os.close(writer)


def test_a_change_of_a_loop_devices_file_is_seen(tmp_path: Path, loop_device: LoopDevice) -> None:
    file = disk(tmp_path / "disk")
    opened = DeviceSource(loop_device(file)).open()
    os.utime(file, ns=(1, 1))
    assert opened.consistency is Consistency.MOVING
    opened.close()


def test_where_the_kernel_counts_no_writes_nothing_is_believed(tmp_path: Path, loop_device: LoopDevice) -> None:
    device = loop_device(disk(tmp_path / "disk"))
    switch = Path(f"/sys/block/{device.name}/queue/iostats")
    switch.write_text("0")
    try:
        first, second = DeviceSource(device).open(), DeviceSource(device).open()
        assert first.token != second.token and first.consistency is Consistency.MOVING
        first.close()
        second.close()
    finally:
        switch.write_text("1")


def test_the_same_device_over_another_file_has_another_token(tmp_path: Path, loop_device: LoopDevice) -> None:
    device = loop_device(disk(tmp_path / "disk"))
    opened = DeviceSource(device).open()
    opened.close()
    subprocess.run(["losetup", "--detach", device], check=True)
    other = disk(tmp_path / "other")
    os.utime(other, ns=((tmp_path / "disk").stat().st_atime_ns, (tmp_path / "disk").stat().st_mtime_ns))
    subprocess.run(["losetup", device, other], check=True)
    again = DeviceSource(device).open()
    assert again.token != opened.token
    again.close()


def test_a_mounted_file_system_is_read_as_after_a_power_cut_or_moving(tmp_path: Path, loop_device: LoopDevice) -> None:
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(16 * MIB)
    # All is written now: no background thread writes while the test looks.
    eager = "lazy_itable_init=0,lazy_journal_init=0"
    subprocess.run(["mkfs.ext4", "-q", "-E", eager, image], check=True)
    device, point = loop_device(image), tmp_path / "point"
    point.mkdir()
    subprocess.run(["mount", device, point], check=True)
    try:
        (point / "old").write_bytes(content(MIB))
        os.sync()
        opened = DeviceSource(device).open()
        whole(opened)
        quiet = opened.consistency
        (note,) = opened.notes
        assert str(device) in note and "Stop what writes" in note
        (point / "new").write_bytes(b"new content, past the page cache of the device" * 1000)
        os.sync()
        after = whole(opened)
        assert (quiet, opened.consistency) == (Consistency.CRASH, Consistency.MOVING)
        opened.close()
    finally:
        subprocess.run(["umount", point], check=True)
    # Read twice while mounted: the second reading shows what was written in between.
    assert b"new content, past the page cache" in after
    found = tmp_path / "found"
    found.write_bytes(after)
    subprocess.run(["debugfs", "-R", f"dump /old {tmp_path}/old", found], check=True, stderr=subprocess.DEVNULL)
    assert (tmp_path / "old").read_bytes() == content(MIB)


def test_a_device_that_is_read_cannot_be_mounted_meanwhile(tmp_path: Path, loop_device: LoopDevice) -> None:
    image = disk(tmp_path / "disk", 16 * MIB)
    subprocess.run(["mkfs.ext4", "-qF", image], check=True)
    device, point = loop_device(image), tmp_path / "point"
    point.mkdir()
    opened = DeviceSource(device).open()
    assert subprocess.run(["mount", device, point], capture_output=True).returncode != 0
    opened.close()
    subprocess.run(["mount", device, point], check=True)
    subprocess.run(["umount", point], check=True)


def test_a_device_that_shrinks_is_an_error(tmp_path: Path, loop_device: LoopDevice) -> None:
    image = disk(tmp_path / "disk")
    device = loop_device(image)
    opened = DeviceSource(device).open()
    os.truncate(image, MIB)
    subprocess.run(["losetup", "--set-capacity", device], check=True)
    with pytest.raises(SourceError, match=f"{device} ends at {MIB}"):
        opened.readinto(MIB, memoryview(bytearray(4096)))
    opened.close()


@pytest.mark.parametrize(("offset", "mark"), [(510, b"\x55\xaa"), (4096, b"EFI PART")])
def test_partitions_in_large_sectors_are_refused_but_a_plain_file_system_is_not(
    tmp_path: Path, loop_device: LoopDevice, offset: int, mark: bytes
) -> None:
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(MIB)
    device = loop_device(image, "--sector-size", "4096")
    DeviceSource(device).open().close()
    with device.open("r+b") as file:
        file.seek(offset)
        file.write(mark)
    with pytest.raises(SourceError, match="4096") as caught:
        DeviceSource(device).open()
    assert caught.value.code == "unsupported_source"


def test_what_is_no_device_is_refused_by_name(tmp_path: Path) -> None:
    for path, words in [
        (tmp_path / "none", "No such file"),
        (tmp_path, "no block device"),
        (Path("/dev/null"), "no block device"),
    ]:
        with pytest.raises(SourceError, match=words) as caught:
            DeviceSource(path).open()
        assert str(path) in caught.value.message and caught.value.remedy


def test_a_device_without_a_medium_is_refused(tmp_path: Path, loop_device: LoopDevice) -> None:
    image = tmp_path / "disk"
    image.touch()
    with pytest.raises(SourceError, match=r"size is 0|cannot be used"):
        DeviceSource(loop_device(image)).open()
