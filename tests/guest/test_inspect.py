"""Where systems are found: layouts of disks made in the appliance, without the systems themselves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wavelift.guest.appliance import launched
from wavelift.guest.errors import NoOperatingSystem, UnsupportedGuest
from wavelift.guest.facts import Firmware
from wavelift.guest.inspect import find_system, mount
from wavelift.guest.mounts import Entry, entries

PASSPHRASE = "open sesame"
ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
Handle = Any
Make = Callable[[Handle, list[str]], None]


def system(handle: Handle, device: str, fstab: str, *more: tuple[str, str]) -> None:
    """A root as little as that can be; `more` is mounted in it."""
    handle.mount(device, "/")
    handle.mkdir_p("/etc")
    handle.write("/etc/fstab", fstab)
    handle.mkdir_p("/boot")
    for other, point in more:
        handle.mkdir_p(point)
        handle.mount(other, point)
        handle.write(f"{point}/mark", point)
    handle.umount_all()


def lvm(handle: Handle, disks: list[str]) -> None:
    """/boot on a partition; / on LVM, with dashes in the names."""
    disk = disks[0]
    handle.part_init(disk, "mbr")
    handle.part_add(disk, "p", 2048, 102400)
    handle.part_add(disk, "p", 104448, -2048)
    handle.mkfs("ext4", f"{disk}1", label="BOOT")
    handle.pvcreate(f"{disk}2")
    handle.vgcreate("vg-0", [f"{disk}2"])
    handle.lvcreate("the-root", "vg-0", 320)
    handle.mkfs("xfs", "/dev/vg-0/the-root")
    fstab = "/dev/mapper/vg--0-the--root / xfs defaults 0 0\nLABEL=BOOT /boot ext4 defaults 0 2\n"
    system(handle, "/dev/vg-0/the-root", fstab, (f"{disk}1", "/boot"))
    handle.vg_activate_all(False)


def raid(handle: Handle, disks: list[str]) -> None:
    """/ on RAID 1 over two disks, named in mdadm.conf as it is nowhere else."""
    for disk in disks:
        handle.part_disk(disk, "gpt")
    handle.md_create("/dev/md/own", [f"{disk}1" for disk in disks], level="raid1")
    (array,) = handle.list_md_devices()
    handle.mkfs("ext4", array)
    system(handle, array, "/dev/md7 / ext4 defaults 0 1\n")
    handle.md_stop(array)


def btrfs(handle: Handle, disks: list[str]) -> None:
    """A system in a subvolume, a snapshot of it, an ESP that fstab does not name."""
    disk = disks[0]
    handle.part_init(disk, "gpt")
    handle.part_add(disk, "p", 2048, 102400)
    handle.part_add(disk, "p", 104448, -2048)
    handle.part_set_gpt_type(disk, 1, ESP)
    handle.mkfs("vfat", f"{disk}1")
    handle.mkfs("btrfs", f"{disk}2")
    uuid = handle.vfs_uuid(f"{disk}2")
    handle.mount(f"{disk}2", "/")
    for name in ("/@rootfs", "/@var"):
        handle.btrfs_subvolume_create(name)
    handle.umount_all()
    fstab = f"UUID={uuid} / btrfs noatime,subvol=/@rootfs 0 0\nUUID={uuid} /var btrfs subvol=@var 0 0\n"
    system(handle, f"btrfsvol:{disk}2/@rootfs", fstab, (f"btrfsvol:{disk}2/@var", "/var"), (f"{disk}1", "/boot/efi"))
    handle.mount(f"{disk}2", "/")
    handle.btrfs_subvolume_snapshot("/@rootfs", "/@old")
    handle.umount_all()


def encrypted(handle: Handle, disks: list[str]) -> None:
    """/ on LVM in an encrypted volume, as Debian's installer makes it."""
    disk = disks[0]
    handle.part_disk(disk, "mbr")
    handle.luks_format(f"{disk}1", PASSPHRASE, 0)
    handle.cryptsetup_open(f"{disk}1", PASSPHRASE, "made")
    handle.pvcreate("/dev/mapper/made")
    handle.vgcreate("safe", ["/dev/mapper/made"])
    handle.lvcreate("root", "safe", 200)
    handle.mkfs("ext4", "/dev/safe/root")
    system(handle, "/dev/safe/root", "/dev/mapper/safe-root / ext4 defaults 0 1\n")
    handle.vg_activate_all(False)
    handle.cryptsetup_close("/dev/mapper/made")


def hibernated(handle: Handle, disks: list[str]) -> None:
    disk = disks[0]
    handle.part_init(disk, "mbr")
    handle.part_add(disk, "p", 2048, 102400)
    handle.part_add(disk, "p", 104448, -2048)
    handle.mkswap(f"{disk}1")
    # As the kernel leaves it: the signature of the swap space in its first page is another one.
    handle.pwrite_device(f"{disk}1", b"S1SUSPEND\0", 4086)
    handle.mkfs("ext4", f"{disk}2")
    system(handle, f"{disk}2", "/dev/sda2 / ext4 defaults 0 1\n")


def two(handle: Handle, disks: list[str]) -> None:
    for disk in disks:
        handle.part_disk(disk, "mbr")
        handle.mkfs("ext4", f"{disk}1")
        system(handle, f"{disk}1", "/dev/sda1 / ext4 defaults 0 1\n")


MADE: dict[str, tuple[Make, int]] = {
    make.__name__: (make, disks)
    for make, disks in ((lvm, 1), (raid, 2), (btrfs, 1), (encrypted, 1), (hibernated, 1), (two, 2))
}


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    folder = tmp_path_factory.mktemp("layouts")
    made = {name: [folder / f"{name}-{number}.img" for number in range(count)] for name, (_, count) in MADE.items()}
    for image in (image for images in made.values() for image in images):
        with image.open("wb") as file:
            file.truncate(512 << 20)
    with launched([image for images in made.values() for image in images]) as appliance:
        devices = iter(appliance.handle.list_devices())
        for name, (make, count) in MADE.items():
            make(appliance.handle, [next(devices) for _ in range(count)])
            if name == "raid":
                name_the_array(appliance.handle)
    return made


def name_the_array(handle: Handle) -> None:
    """In mdadm.conf, once it is made: its UUID is not known before."""
    handle.debug("sh", ["mdadm --assemble --scan"])
    (array,) = handle.list_md_devices()
    handle.mount(array, "/")
    handle.mkdir_p("/etc/mdadm")
    handle.write("/etc/mdadm/mdadm.conf", f"ARRAY /dev/md7 metadata=1.2 UUID={handle.md_detail(array)['uuid']}\n")
    handle.umount_all()
    handle.md_stop(array)


@pytest.mark.matrix
@pytest.mark.machine
def test_systems_are_found_where_they_lie(disks: dict[str, list[Path]], tmp_path: Path) -> None:
    key, wrong = tmp_path / "key", tmp_path / "wrong"
    key.write_text(f"{PASSPHRASE}\n")
    wrong.write_text("no\n")

    with launched(disks["lvm"]) as appliance:
        found = find_system(appliance)
        assert (found.root.device, found.root.kind, found.root.place) == ("/dev/vg-0/the-root", "xfs", None)
        assert found.mounts["/boot"].place == (0, 1) and found.firmware is Firmware.BIOS
        mount(appliance, found, writable=False)
        assert appliance.read("/boot/mark") == b"/boot"

    with launched(disks["raid"]) as appliance:
        found = find_system(appliance)
        assert found.root.device.startswith("/dev/md") and found.root.place is None and set(found.mounts) == {"/"}

    with launched(disks["btrfs"]) as appliance:
        found = find_system(appliance)
        assert found.root.device == "btrfsvol:/dev/sda2/@rootfs" and found.root.place == (0, 2)
        assert set(found.mounts) == {"/", "/var", "/boot/efi"} and found.firmware is Firmware.UEFI
        mount(appliance, found, writable=False)
        assert appliance.read("/var/mark") == b"/var" and appliance.read("/boot/efi/mark") == b"/boot/efi"

    with launched(disks["encrypted"]) as appliance:
        with pytest.raises(UnsupportedGuest, match="encrypted"):
            find_system(appliance)
        with pytest.raises(UnsupportedGuest, match="none of the 1 keys"):
            find_system(appliance, [wrong])
        assert find_system(appliance, [wrong, key]).root.device == "/dev/safe/root"


@pytest.mark.matrix
@pytest.mark.machine
def test_what_cannot_be_prepared_is_refused_with_the_reason(disks: dict[str, list[Path]]) -> None:
    with launched(disks["hibernated"]) as appliance, pytest.raises(UnsupportedGuest, match="hibernated"):
        find_system(appliance)
    with launched(disks["two"]) as appliance, pytest.raises(UnsupportedGuest, match="several systems"):
        find_system(appliance)
    with launched(disks["raid"][1:]) as appliance, pytest.raises((NoOperatingSystem, UnsupportedGuest)):
        find_system(appliance)


def test_fstab_is_read_as_mount_does() -> None:
    text = '# comment\nUUID="a-b" / ext4 defaults 0 1\n/dev/sda2 none swap sw\n'
    text += "LABEL=x\t/my\\040data xfs\n\nbad\n/dev/b /c/\n"
    assert entries(text) == [
        Entry("UUID=a-b", "/", "ext4", "defaults"),
        Entry("/dev/sda2", "none", "swap", "sw"),
        Entry("LABEL=x", "/my data", "xfs", "defaults"),
        Entry("/dev/b", "/c", "auto", "defaults"),
    ]
