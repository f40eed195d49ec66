"""fstab by UUID: only what must change changes, once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.guest.conftest import FSTAB
from wavelift.guest.boot.crypttab import rewrite_crypttab
from wavelift.guest.boot.fstab import mount_points, rewrite_fstab
from wavelift.guest.boot.grub import rewrite_defaults
from wavelift.guest.facts import Devices
from wavelift.guest.initramfs.virtio import rewrite_resume

ROOT, SWAP, DATA = "11111111-aaaa", "22222222-bbbb", "33333333-cccc"
DEVICES = Devices({(0, 1): ROOT, (0, 5): SWAP, (1, 1): DATA})


def test_fstab_keeps_everything_else() -> None:
    result = rewrite_fstab(FSTAB, DEVICES)
    assert result.warnings == ()
    before, after = FSTAB.splitlines(), result.text.splitlines()
    assert [number for number, line in enumerate(before) if after[number] != line] == [1, 2, 3]
    assert after[1] == f"UUID={ROOT} /               ext4    errors=remount-ro 0       1"
    assert after[2] == f"UUID={SWAP}\tnone\tswap\tsw\t0\t0"
    assert after[3] == f"  UUID={DATA} /data           ext4    defaults        0       2"
    assert rewrite_fstab(result.text, DEVICES) == result


def test_columns_stay_where_there_is_room() -> None:
    line = "/dev/sda1                                  /  ext4 defaults 0 1\n"
    rewritten = rewrite_fstab(line, DEVICES).text
    assert rewritten.index(" /  ext4") == line.index(" /  ext4")


@pytest.mark.parametrize("name", ["/dev/sda1", "/dev/hda1", "/dev/vda1", "/dev/xvda1"])
def test_letters_of_every_bus(name: str) -> None:
    assert DEVICES.uuid(name) == ROOT


@pytest.mark.parametrize("name", ["/dev/sda", "/dev/sda2", "/dev/sdaa1", "/dev/mapper/a", "/dev/sr0", "LABEL=x"])
def test_unknown_names_have_no_uuid(name: str) -> None:
    assert DEVICES.uuid(name) is None


def test_what_is_on_no_disk_is_said() -> None:
    result = rewrite_fstab("/dev/sdc1 /backup ext4 defaults 0 2\n", DEVICES)
    assert result.text == "/dev/sdc1 /backup ext4 defaults,nofail 0 2\n"
    assert "/dev/sdc1" in result.warnings[0]


def test_what_is_on_no_disk_holds_up_no_boot() -> None:
    result = rewrite_fstab("/dev/sdq1\t/backup\text4\tdefaults\t0 2\n", DEVICES)
    assert result.text == "/dev/sdq1\t/backup\text4\tdefaults,nofail\t0 2\n" and "/dev/sdq1" in result.warnings[0]
    assert rewrite_fstab(result.text, DEVICES).text == result.text
    for line in ("/dev/sr0 /media udf noauto 0 0\n", "/dev/mapper/x /x ext4 defaults 0 0\n", "UUID=y /y ext4 ro 0 0\n"):
        assert rewrite_fstab(line, DEVICES).text == line


def test_resume() -> None:
    assert rewrite_resume("RESUME=/dev/sda5\n", DEVICES).text == f"RESUME=UUID={SWAP}\n"
    assert rewrite_resume("RESUME=none\n", DEVICES).text == "RESUME=none\n"


def test_crypttab() -> None:
    text = "# name device key\nsda5_crypt /dev/sda5 none luks,discard\nother UUID=x none\nlost\t/dev/sdq1 none\n"
    result = rewrite_crypttab(text, DEVICES)
    assert result.text == text.replace("/dev/sda5 ", f"UUID={SWAP} ")
    assert result.warnings == ("/etc/crypttab: /dev/sdq1 is on none of the given disks and stays as it is",)
    assert rewrite_crypttab(result.text, DEVICES) == result


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_any_text_without_devices_is_untouched(text: str) -> None:
    for rewrite in (rewrite_fstab, rewrite_defaults, rewrite_resume):
        if "/dev/" not in text and "GRUB_" not in text:
            assert rewrite(text, DEVICES).text == text


def test_mount_points() -> None:
    points = mount_points(FSTAB)
    assert points["/"] == "/dev/sda1" and points["/old"] == "UUID=0000-0001" and "<mount" not in points
