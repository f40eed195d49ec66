"""Guests that are damaged, or made to do harm: a typed error, no hang, and nothing written outside of them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from wavelift.guest.appliance import Appliance, launched
from wavelift.guest.errors import DamagedFileSystem, GuestError, NoOperatingSystem, NoSpace, UnsupportedGuest
from wavelift.guest.files import FileEdit
from wavelift.guest.inspect import find_system

pytestmark = [pytest.mark.slow, pytest.mark.machine]
MIB = 1 << 20


@pytest.fixture(scope="module")
def trapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """A guest whose files are traps."""
    image = tmp_path_factory.mktemp("trapped") / "disk.img"
    image.write_bytes(b"")
    os.truncate(image, 64 * MIB)
    with launched([image]) as made:
        handle = made.handle
        handle.part_disk("/dev/sda", "mbr")
        handle.mkfs("ext4", "/dev/sda1")
        made.mount("/dev/sda1", "/", writable=True)
        for folder in ("/etc", "/boot", "/dev"):
            handle.mkdir(folder)
        handle.ln_s("/etc/loop-b", "/etc/loop-a")
        handle.ln_s("/etc/loop-a", "/etc/loop-b")
        handle.ln_s("../../../../../../etc/passwd", "/etc/outside")
        handle.mknod_c(0o666, 1, 5, "/dev/zero")
        handle.ln_s("/dev/zero", "/etc/endless")
        handle.mkfifo(0o666, "/etc/waits")
        handle.write("/etc/giant", "")
        handle.truncate_size("/etc/giant", 3 << 30)
        handle.write("/etc/plain", "before")
        handle.ln_s("/etc/plain", "/etc/by-link")
        yield made


@pytest.mark.parametrize("path", ["/etc/loop-a", "/etc/outside", "/etc/endless", "/etc/waits", "/etc", "/none"])
def test_what_is_no_file_of_the_guest_is_not_read(trapped: Appliance, path: str) -> None:
    assert trapped.read(path) is None and trapped.names(path + "/x") == []


def test_a_giant_is_refused_by_its_size(trapped: Appliance) -> None:
    with pytest.raises(UnsupportedGuest, match="/etc/giant has 3221225472 bytes"):
        trapped.read("/etc/giant")


def test_a_link_is_written_through_and_stays_in_the_guest(trapped: Appliance) -> None:
    passwd = Path("/etc/passwd").read_bytes()
    trapped.apply(FileEdit("/etc/by-link", b"before", b"after", "test"))
    assert trapped.handle.readlink("/etc/by-link") == "/etc/plain" and trapped.read("/etc/plain") == b"after"
    trapped.apply(FileEdit("/etc/outside", None, b"caught", "test"))
    assert trapped.read("/etc/outside") == b"caught" and not trapped.handle.is_symlink("/etc/outside")
    assert Path("/etc/passwd").read_bytes() == passwd


def test_what_does_not_fit_is_said_before_anything_is_written(trapped: Appliance) -> None:
    edits = [FileEdit("/etc/large", None, bytes(80 * MIB), "test")]
    with pytest.raises(NoSpace, match="bytes free"):
        trapped.check_space(edits)
    assert trapped.read("/etc/large") is None


def damaged(path: Path, kind: str) -> None:
    """A disk with an ext4 or XFS file system, and then not any more."""
    with path.open("wb") as file:
        file.truncate(400 * MIB)
    with launched([path]) as made:
        made.handle.part_disk("/dev/sda", "mbr")
        made.handle.mkfs("xfs" if kind == "xfs" else "ext4", "/dev/sda1")
        made.mount("/dev/sda1", "/", writable=True)
        made.handle.mkdir("/etc")
        made.handle.write("/etc/fstab", "/dev/sda1 / ext4 defaults 0 1\n")
        start = made.handle.part_list("/dev/sda")[0]["part_start"]
    with path.open("r+b") as file:
        if kind == "table":
            file.seek(446)
            file.write(os.urandom(64))
        elif kind == "inodes":
            # Group descriptors and inode tables, but not the superblock in the first block.
            file.seek(start + 4096)
            file.write(b"\xff" * (8 * MIB))
        else:
            # The root inode of XFS, with all of the first allocation group's metadata but its superblock.
            file.seek(start + 512)
            file.write(b"\xff" * MIB)


@pytest.mark.parametrize("kind", ["table", "inodes", "xfs"])
def test_damage_is_a_typed_error(tmp_path: Path, kind: str) -> None:
    disk = tmp_path / "disk.img"
    damaged(disk, kind)
    with pytest.raises(GuestError) as caught, launched([disk], writable=False) as made:
        find_system(made)
    expected = NoOperatingSystem if kind == "table" else DamagedFileSystem
    assert isinstance(caught.value, expected), caught.value
    assert caught.value.remedy
