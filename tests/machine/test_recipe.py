"""The parts of the recipe that need no build."""

import io
import struct
import tarfile

from demo.machine.disk import PARTITION_START, SECTOR, master_boot_record
from demo.machine.recipe import DATA, SYSTEM, overlay_archive, recipe_digest


def test_partition_table_covers_the_disk() -> None:
    for spec in (SYSTEM, DATA):
        record = master_boot_record(spec)
        assert len(record) == 512 and record[510:] == b"\x55\xaa"
        flag, kind, start, count = struct.unpack_from("<B3xB3xII", record, 446)
        assert (flag, kind) == (0x80 if spec.bootable else 0, 0x83)
        assert start * SECTOR == PARTITION_START and (start + count) * SECTOR == spec.size


def test_overlay_is_the_same_each_time_and_owned_by_root() -> None:
    assert overlay_archive() == overlay_archive()
    with tarfile.open(fileobj=io.BytesIO(overlay_archive())) as archive:
        members = {member.name: member for member in archive.getmembers()}
    assert all(member.uid == member.gid == 0 for member in members.values())
    assert members["etc/init.d/rcS"].mode == 0o755 and members["etc/fstab"].mode == 0o644


def test_digest_is_stable() -> None:
    assert recipe_digest() == recipe_digest()
