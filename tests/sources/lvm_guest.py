"""Runs inside a machine whose kernel has device-mapper: logical volumes as sources. Prints one line per scenario."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from wavelift.blocks.errors import SourceError
from wavelift.sources import lvm_plan
from wavelift.sources.base import Consistency, PointInTime
from wavelift.sources.choose import PathSource, source_for
from wavelift.sources.device import DevicePointInTime
from wavelift.sources.lvm import LvmPointInTime
from wavelift.sources.together import Since, recover_all

MIB = 1 << 20
SIZE = 16 * MIB
DATA, OTHER = Path("/dev/mapper/vg--0-data"), Path("/dev/mapper/vg--0-other")
CONFIGURATION = "backup { backup=0 archive=0 }\nactivation { udev_sync=0 udev_rules=0 monitoring=0 }\n"


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def prepare(disk: str) -> None:
    folder = Path(os.environ["LVM_SYSTEM_DIR"])
    folder.mkdir()
    (folder / "lvm.conf").write_text(CONFIGURATION)
    run("pvcreate", "-q", disk)
    run("vgcreate", "-q", "--physicalextentsize", "1m", "vg-0", disk)
    for path in (DATA, OTHER):
        run("lvcreate", "-q", "-y", "-n", path.name.partition("-0-")[2], "-L", f"{SIZE}b", "vg-0")


def pattern(seed: int, size: int = SIZE) -> bytes:
    return random.Random(seed).randbytes(size)


def write(path: Path, data: bytes, at: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def whole(opened: PointInTime) -> bytes:
    found = bytearray(opened.size)
    opened.readinto(0, memoryview(found))
    return bytes(found)


def names() -> set[str]:
    return {row.name for row in lvm_plan.parse(run(*lvm_plan.QUERY))}


def the_volume_is_written_on_and_the_snapshot_is_not() -> None:
    write(DATA, pattern(1))
    source = source_for(str(DATA))
    assert isinstance(source, PathSource) and source.kind == "lvm"
    assert source.describe() == (SIZE, Consistency.CRASH) and names() == {"data", "other"}
    opened = source.open()
    print(run(*lvm_plan.QUERY), run("dmsetup", "status"))
    write(DATA, pattern(2, MIB), 5 * MIB)
    assert (opened.size, opened.consistency) == (SIZE, Consistency.CRASH)
    assert whole(opened) == pattern(1)
    print(run("dmsetup", "status"))
    opened.close()
    assert names() == {"data", "other"}
    again = source.open()
    assert whole(again)[5 * MIB : 6 * MIB] == pattern(2, MIB) and again.token != opened.token
    again.close()


def a_mounted_file_system_is_whole_and_has_what_was_not_yet_on_the_disk() -> None:
    run("mkfs.ext4", "-q", "-F", DATA)
    Path("/tmp/point").mkdir()
    run("mount", DATA, "/tmp/point")
    Path("/tmp/point/file").write_bytes(pattern(3, MIB))
    opened = source_for(str(DATA)).open()
    Path("/tmp/point/later").write_bytes(pattern(4, MIB))
    os.sync()
    Path("/tmp/copy").write_bytes(whole(opened))
    opened.close()
    run("umount", "/tmp/point")
    run("e2fsck", "-fn", "/tmp/copy")
    run("debugfs", "-R", "dump /file /tmp/file", "/tmp/copy")
    assert Path("/tmp/file").read_bytes() == pattern(3, MIB)
    assert "later" not in run("debugfs", "-R", "ls /", "/tmp/copy")


def what_a_killed_agent_left_is_removed_and_what_is_in_use_is_not() -> None:
    child = os.fork()
    if child == 0:
        source_for(str(DATA)).open()
        os._exit(0)
    os.waitpid(child, 0)
    assert len(names()) == 3
    source = source_for(str(DATA))
    first = source.open()
    assert len(names()) == 3
    second = source.open()
    assert len(names()) == 4 and whole(first) == whole(second)
    second.close()
    first.close()
    assert names() == {"data", "other"}


def what_a_killed_agent_left_is_removed_when_the_next_one_starts() -> None:
    child = os.fork()
    if child == 0:
        for path in (DATA, OTHER):
            source_for(str(path)).open()
        os._exit(0)
    os.waitpid(child, 0)
    assert len(names()) == 4
    recover_all([source_for(str(path)) for path in (DATA, OTHER)])
    assert names() == {"data", "other"}


def a_snapshot_that_overflows_is_an_error_and_is_removed() -> None:
    opened = source_for(str(DATA)).open()
    write(DATA, pattern(5))
    try:
        whole(opened)
    except SourceError as error:
        assert error.code == "snapshot_full" and "vg-0/data" in error.message and "vgextend" in error.remedy, error
    else:
        raise AssertionError("it was read")
    opened.close()
    assert names() == {"data", "other"} and DATA.read_bytes() == pattern(5)


def without_room_the_volume_itself_is_read_and_labelled() -> None:
    run("lvcreate", "-q", "-y", "-n", "filler", "-l", "100%FREE", "vg-0")
    source = source_for(str(DATA))
    assert isinstance(source, PathSource) and source.describe() == (SIZE, Consistency.MOVING)
    opened = source.open()
    assert isinstance(opened, DevicePointInTime) and "0 bytes free" in opened.notes[0]
    assert whole(opened) == pattern(5) and opened.consistency is Consistency.OFFLINE
    opened.close()
    run("lvremove", "-q", "-y", "vg-0/filler")


def two_volumes_are_of_one_instant_unless_one_was_written_in_between() -> None:
    first, second = PathSource(DATA), PathSource(OTHER)
    opened = first.open_together([(first, Since()), (second, Since())])
    assert [point.consistency for point in opened] == [Consistency.CRASH, Consistency.CRASH]
    for point in opened:
        point.close()
    early = first.open()
    assert isinstance(early, LvmPointInTime)
    write(DATA, b"between", MIB)
    late = second.open()
    assert isinstance(late, LvmPointInTime)
    early.settle()
    late.settle()
    assert (early.consistency, late.consistency) == (Consistency.MOVING, Consistency.CRASH)
    assert "not of one instant" in early.notes[0]
    early.close()
    late.close()
    assert names() == {"data", "other"}


SCENARIOS: list[Callable[[], None]] = [
    the_volume_is_written_on_and_the_snapshot_is_not,
    a_mounted_file_system_is_whole_and_has_what_was_not_yet_on_the_disk,
    what_a_killed_agent_left_is_removed_and_what_is_in_use_is_not,
    what_a_killed_agent_left_is_removed_when_the_next_one_starts,
    a_snapshot_that_overflows_is_an_error_and_is_removed,
    without_room_the_volume_itself_is_read_and_labelled,
    two_volumes_are_of_one_instant_unless_one_was_written_in_between,
]


def main() -> None:
    prepare(sys.argv[1])
    for scenario in SCENARIOS:
        try:
            scenario()
        except Exception:  # noqa: BLE001  printed, and the test misses the line below
            traceback.print_exc(file=sys.stdout)
            return
        print(f"done: {scenario.__name__}", flush=True)


if __name__ == "__main__":
    main()
