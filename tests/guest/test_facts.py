"""The names of disks and partitions that the move changes, and those that it does not."""

import pytest

from wavelift.guest.facts import Devices

ONE = Devices({(0, 1): "root", (0, 0): "whole"})
TWO = Devices({(0, 1): "root", (1, 1): "data"})


@pytest.mark.parametrize(
    ("name", "uuid"),
    [
        ("/dev/sda1", "root"),
        ("/dev/xvda1", "root"),
        ("/dev/sdb1", None),
        ("/dev/nvme0n1p1", "root"),
        ("/dev/nvme0n1", "whole"),
        ("/dev/mmcblk0p1", "root"),
        ("/dev/disk/by-id/ata-VBOX_HARDDISK_VB1-part1", "root"),
        ("/dev/disk/by-path/pci-0000:00:1f.2-ata-1", "whole"),
    ],
)
def test_what_a_name_stands_for(name: str, uuid: str | None) -> None:
    assert ONE.uuid(name) == uuid and ONE.changes(name)


def test_serials_of_several_disks_cannot_be_told_apart() -> None:
    assert TWO.uuid("/dev/disk/by-id/scsi-36000c29-part1") is None and TWO.uuid("/dev/nvme1n1p1") == "data"


@pytest.mark.parametrize(
    "name",
    ["UUID=x", "LABEL=x", "/dev/mapper/vg-root", "/dev/vg/root", "/dev/md0", "/dev/disk/by-uuid/x", "/dev/sr0"]
    + [f"/dev/disk/by-id/{name}" for name in ("dm-name-vg-root", "md-name-host:0", "lvm-pv-uuid-x")],
)
def test_names_that_stay(name: str) -> None:
    assert ONE.uuid(name) is None and not ONE.changes(name)
