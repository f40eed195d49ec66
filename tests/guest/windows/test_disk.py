"""A Windows disk, prepared through the appliance: on NTFS, with what starts it on a partition of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.guest.windows.test_windows import SERVER
from tests.guest.windows.trees import content_of, make_virtio_win, make_windows, put
from wavelift.guest.appliance import launched

pytestmark = [pytest.mark.machine, pytest.mark.slow]  # appliances
MIB = 1 << 20
TABLES = {
    "bios": "label: dos\nstart=2048, size=65536, type=7, bootable\nstart=67584, type=7\n",
    "uefi": "label: gpt\nstart=2048, size=65536, type=U\nstart=67584, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7\n",
}
STORES = {"bios": "Boot/BCD", "uefi": "EFI/Microsoft/Boot/BCD"}


def make_disk(tree: Path, boot: Path, firmware: str, disk: Path) -> None:
    with disk.open("wb") as file:
        file.truncate(192 * MIB)
    subprocess.run(["sfdisk", "--quiet", str(disk)], input=TABLES[firmware], text=True, check=True)
    with launched([disk]) as appliance:
        handle = appliance.handle
        handle.mkfs("ntfs" if firmware == "bios" else "vfat", "/dev/sda1")
        handle.mkfs("ntfs", "/dev/sda2")
        for device, source in (("/dev/sda1", boot), ("/dev/sda2", tree)):
            handle.mount(device, "/")
            for path in sorted(source.rglob("*")):
                place = f"/{path.relative_to(source)}"
                if path.is_dir():
                    handle.mkdir_p(place)
                else:
                    handle.upload(str(path), place)
            handle.umount_all()


def files_on(disk: Path, folder: Path) -> dict[str, bytes]:
    """Of both partitions, and the access lists of those of Windows itself."""
    folder.mkdir()
    with launched([disk], writable=False) as appliance:
        handle = appliance.handle
        for device in ("/dev/sda1", "/dev/sda2"):
            (folder / device[-1]).mkdir()
            handle.mount_ro(device, "/")
            handle.copy_out("/", str(folder / device[-1]))
        lists = {
            f"access list of {path}": bytes(handle.lgetxattr(path, "system.ntfs_acl"))
            for path in ("/Windows/System32/config/SYSTEM", "/Windows/System32/config/SOFTWARE")
        }
    return {**content_of(folder), **lists}


def run(*words: str | Path) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "wavelift.guest", *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_prepared_once_and_taken_back(firmware: str, tmp_path: Path) -> None:
    tree, boot = make_windows(tmp_path / "tree", SERVER), tmp_path / "boot"
    put(boot, STORES[firmware], (tree / "Boot/BCD").read_bytes())
    (tree / "Boot/BCD").unlink()
    (tree / "System Volume Information").mkdir()
    disk, virtio_win = tmp_path / "disk.img", make_virtio_win(tmp_path / "virtio-win", "2k22", "amd64")
    make_disk(tree, boot, firmware, disk)
    before = files_on(disk, tmp_path / "before")

    status, refused = run("--plan", disk)
    assert (status, refused["code"]) == (1, "missing_driver") and "--virtio-win" in refused["remedy"]

    status, report = run("--virtio-win", virtio_win, disk)
    assert (status, report["event"]) == (0, "report"), report
    assert (report["os"], report["firmware"]) == ("Windows Server 2022 Standard", firmware)
    names = [check["name"] for check in report["checks"]]
    assert {"disk drivers at boot", "no repair screen", "first boot"} <= set(names)
    assert [change for change in report["changes"] if change["path"].endswith(STORES[firmware])]
    after = files_on(disk, tmp_path / "after")
    assert (
        after["2/Windows/System32/drivers/viostor.sys"] == (virtio_win / "viostor/2k22/amd64/viostor.sys").read_bytes()
    )
    lists = [name for name in before if name.startswith("access list")]
    assert [after[name] for name in lists] == [before[name] for name in lists]
    assert not [name for name in after if "wavelift-new" in name]

    assert run("--virtio-win", virtio_win, disk)[1]["changes"] == []
    status, undone = run("--undo", disk)
    assert (status, undone["event"]) == (0, "undone"), undone
    assert files_on(disk, tmp_path / "undone") == before


def test_hibernated(tmp_path: Path) -> None:
    tree = make_windows(tmp_path / "tree", SERVER)
    put(tree, "hiberfil.sys", b"hibr" + bytes(4092))
    disk = tmp_path / "disk.img"
    make_disk(tree, tmp_path / "none", "bios", disk)
    status, refused = run("--plan", disk)
    assert (status, refused["code"]) == (1, "unsupported_guest") and "hibernated" in refused["message"]
