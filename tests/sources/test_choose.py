"""What a text names is opened as what it is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from wavelift.blocks.errors import SourceError
from wavelift.sources.base import Consistency
from wavelift.sources.choose import Guests, PathSource, source_for
from wavelift.sources.qemu import QemuDisk
from wavelift.sources.together import Since

from .conftest import LoopDevice, Serve

SIZE = 1 << 20


def raw(path: Path, start: bytes = b"") -> Path:
    path.write_bytes(start.ljust(SIZE, b"\1"))
    return path


def qcow2(path: Path, size: int = SIZE) -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(size)], check=True)
    # Whole sectors, so that it could be a raw disk as well.
    os.truncate(path, 512 << 10)
    return path


def opened(text: str, bitmap: str | None = None) -> tuple[str, int, bytes]:
    """(kind, size, first bytes)."""
    source = source_for(text, bitmap)
    found = source.open()
    start = bytearray(8)
    found.readinto(0, memoryview(start))
    found.close()
    return source.kind, found.size, bytes(start)


def test_an_image_is_known_by_its_first_bytes_unless_the_format_is_given(tmp_path: Path) -> None:
    assert opened(str(raw(tmp_path / "a"))) == ("image", SIZE, b"\1" * 8)
    inside = qcow2(tmp_path / "b", 4 * SIZE)
    assert opened(str(inside)) == opened(f"qcow2:{inside}") == ("qcow2", 4 * SIZE, bytes(8))
    # The very same file as a raw disk: its guest wrote that.
    assert opened(f"raw:{inside}") == ("image", inside.stat().st_size, b"QFI\xfb\0\0\0\3")
    with pytest.raises(SourceError, match="no qcow2"):
        source_for(f"qcow2:{tmp_path / 'a'}").open()


def test_a_link_to_a_block_device_is_a_device(tmp_path: Path, loop_device: LoopDevice) -> None:
    link = tmp_path / "disk-by-id"
    # On a device nothing is guessed: what is on it belongs to whoever writes there.
    link.symlink_to(loop_device(qcow2(tmp_path / "a")))
    kind, size, start = opened(str(link))
    assert (kind, start[:4]) == ("device", b"QFI\xfb") and size == 512 << 10


def test_an_export(tmp_path: Path, serve: Serve) -> None:
    socket = tmp_path / "socket"
    serve(socket, "nbdkit", "-f", "-U", socket, "memory", str(SIZE))
    assert opened(f"nbd+unix:///?socket={socket}") == ("nbd", SIZE, bytes(8))


@pytest.mark.parametrize(("magic", "name"), [(b"KDMV", "VMDK"), (b"conectix", "VHD"), (b"vhdxfile", "VHDX")])
def test_other_formats_are_refused_unless_they_are_said_to_be_raw(tmp_path: Path, magic: bytes, name: str) -> None:
    path = raw(tmp_path / "disk", magic)
    with pytest.raises(SourceError, match=f"is a {name} image") as caught:
        source_for(str(path)).open()
    assert caught.value.code == "unsupported_source" and f"raw:{path}" in caught.value.remedy
    assert opened(f"raw:{path}")[0] == "image"


def test_what_is_neither_file_nor_block_device_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/zero"), tmp_path / "pipe", tmp_path):
        with pytest.raises(SourceError, match="neither") as caught:
            source_for(str(path)).open()
        assert caught.value.code == "unsupported_source" and str(path) in caught.value.message


def test_what_is_not_there_yet_is_an_error_of_the_opening(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    source = source_for(str(path))
    assert source.kind == "image"
    with pytest.raises(SourceError, match="No such file"):
        source.open()
    qcow2(path)
    assert source.kind == "qcow2"


def test_a_bitmap_of_what_has_none_is_refused(tmp_path: Path) -> None:
    path = raw(tmp_path / "a")
    for text in (f"raw:{path}", str(path)):
        with pytest.raises(SourceError, match="has no bitmap"):
            source_for(text, "b0").open()


def test_disks_of_this_machine_are_opened_together_and_described_without_a_trace(
    tmp_path: Path, loop_device: LoopDevice
) -> None:
    device = PathSource(loop_device(raw(tmp_path / "a")))
    inside, plain = PathSource(qcow2(tmp_path / "b")), PathSource(raw(tmp_path / "c"))
    large = PathSource(loop_device(raw(tmp_path / "d"), "--sector-size", "4096"))
    assert [disk.sector_size() for disk in (device, inside, plain, large)] == [512, 512, 512, 4096]
    disks = [plain, device, inside]
    assert len({disk.host for disk in disks}) == 1
    assert [disk.describe() for disk in disks] == [(SIZE, Consistency.OFFLINE)] * 3
    opened = device.open_together([(disk, Since()) for disk in disks])
    assert [type(point).__name__ for point in opened] == ["ImagePointInTime", "DevicePointInTime", "Qcow2PointInTime"]
    # Described while it is read: what it is then, in use.
    assert device.describe() == (SIZE, Consistency.CRASH)
    for point in opened:
        point.close()
    for disk in disks:
        disk.forget("web")


def test_where_one_of_several_disks_fails_none_stays_open(tmp_path: Path, loop_device: LoopDevice) -> None:
    device = PathSource(loop_device(raw(tmp_path / "a")))
    with pytest.raises(SourceError, match="No such file"):
        device.open_together([(device, Since()), (PathSource(tmp_path / "none"), Since())])
    # Nobody holds it: it can be claimed again.
    again = device.open()
    assert again.consistency is Consistency.OFFLINE
    again.close()


def test_a_disk_of_a_guest_and_those_that_share_its_monitor(tmp_path: Path) -> None:
    guests = Guests(tmp_path)
    first = source_for(f"qmp:{tmp_path}/m?node=a&agent={tmp_path}/ga", guests=guests)
    second = source_for(f"qmp:{tmp_path}/m?node=b&agent={tmp_path}/ga", guests=guests)
    other = source_for("qmp:/run/n?node=a")
    assert isinstance(first, QemuDisk) and isinstance(second, QemuDisk) and isinstance(other, QemuDisk)
    assert first.guest is second.guest is not other.guest
    assert (first.name, second.name, first.guest.agent) == ("a", "b", tmp_path / "ga")
    assert (other.guest.monitor, other.guest.agent) == (Path("/run/n"), None)
    with pytest.raises(SourceError, match="another agent socket"):
        source_for(f"qmp:{tmp_path}/m?node=c", guests=guests)


@pytest.mark.parametrize(
    "text", ["qmp:", "qmp:/run/m", "qmp:/run/m?node=", "qmp:?node=a", "qmp:/m?node=a&agent=", "qmp:/m?node=a&size=1"]
)
def test_a_disk_of_a_guest_that_is_not_named_is_refused(text: str) -> None:
    with pytest.raises(SourceError, match="node=NODE") as caught:
        source_for(text)
    assert caught.value.code == "unsupported_source"
    with pytest.raises(SourceError, match="no bitmap"):
        source_for("qmp:/run/m?node=a", "b0")
