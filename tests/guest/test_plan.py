"""Planning on a plain tree: what is missing is planned, and once it is there, nothing is."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.guest.conftest import applied, plain_initramfs
from wavelift.guest.errors import MissingDriver, PostconditionFailed, UnsupportedGuest
from wavelift.guest.facts import Devices, FileSystem, Guest, Layout, describe
from wavelift.guest.files import DirectoryFiles, FileEdit
from wavelift.guest.initramfs import image as initramfs
from wavelift.guest.initramfs import virtio
from wavelift.guest.initramfs.virtio import keep_drivers
from wavelift.guest.plan import Plan, check_prepared, check_written, make_plan
from wavelift.manifest.wishes import Wishes

NOTHING = Wishes()
ROOT = FileSystem("/dev/sda1", "ext4", "11111111-aaaa", (0, 1))
DEVICES = Devices({(0, 1): ROOT.uuid, (0, 5): "22222222-bbbb", (1, 1): "33333333-cccc"})


def layout(root: FileSystem) -> Layout:
    return Layout(root, {"/": root}, DEVICES)


def inspect(tree: Path) -> tuple[Guest, DirectoryFiles]:
    files = DirectoryFiles(tree)
    return describe(files, layout(ROOT)), files


def planned(tree: Path) -> Plan:
    guest, files = inspect(tree)
    return make_plan(guest, NOTHING, files)


def edit_of(plan: Plan, path: str) -> FileEdit:
    (found,) = [edit for edit in plan.edits if edit.path == path]
    return found


def test_plan_apply_check(guest_tree: Path) -> None:
    guest, files = inspect(guest_tree)
    assert guest.system.name == "Debian GNU/Linux 12 (bookworm)"
    plan = planned(guest_tree)
    kernel = guest.kernels[0]
    assert {edit.path for edit in plan.edits} == {
        "/var/lib/wavelift/prepare-1.json",
        kernel.initrd,
        "/etc/fstab",
        "/boot/grub/grub.cfg",
        "/etc/default/grub",
        "/etc/initramfs-tools/modules",
        "/etc/initramfs-tools/conf.d/resume",
    }
    assert plan.edits[1].path == kernel.initrd, "drivers come first"
    with pytest.raises(PostconditionFailed, match="still to change"):
        check_prepared(guest, NOTHING, files)
    with pytest.raises(PostconditionFailed, match="does not hold"):
        check_written(plan, files)

    applied(guest_tree, plan.edits)
    assert planned(guest_tree).edits == ()
    assert check_written(plan, files)
    shown = check_prepared(guest, NOTHING, files)
    names = [check.name for check in shown]
    assert names == [f"drivers of kernel {kernel.version}", "fstab by UUID", "root by a name that stays"]


def test_the_segment_is_appended_and_complete(guest_tree: Path) -> None:
    guest, _ = inspect(guest_tree)
    edit = edit_of(planned(guest_tree), guest.kernels[0].initrd)
    assert isinstance(edit.after, bytes)
    assert edit.after.startswith(plain_initramfs()), "what was there is not touched"
    image = initramfs.read(edit.after, guest.kernels[0].version)
    assert {"virtio", "virtio_ring", "virtio_pci", "virtio_blk", "virtio_scsi", "scsi_mod"} <= set(image.modules())
    assert image.load_list() == b"ext4\nvirtio_pci\nvirtio_blk\n"
    alias = image.table("modules.alias")
    assert alias is not None and b"virtio_blk" in alias and b"virtio_pci" in alias
    assert f"usr/lib/modules/{guest.kernels[0].version}" in image.files


def test_a_missing_table_entry_counts_as_missing(guest_tree: Path) -> None:
    kernel = inspect(guest_tree)[0].kernels[0]
    after = edit_of(planned(guest_tree), kernel.initrd).after
    assert isinstance(after, bytes)
    image = initramfs.read(after, kernel.version)
    del image.files[f"{image.folder}/modules.dep"]
    assert "virtio_blk in modules.dep" in initramfs.missing(image, kernel.modules)


def test_a_module_lost_from_the_initramfs_fails_the_check(guest_tree: Path) -> None:
    guest, files = inspect(guest_tree)
    plan = planned(guest_tree)
    applied(guest_tree, plan.edits)
    applied(guest_tree, [FileEdit(guest.kernels[0].initrd, None, plain_initramfs(), "lost")])
    with pytest.raises(PostconditionFailed, match="lacks module virtio"):
        virtio.check(guest, NOTHING, files)


def test_no_driver_anywhere(guest_tree: Path) -> None:
    table = next((guest_tree / "lib/modules").iterdir()) / "modules.dep"
    lines = [line for line in table.read_text().splitlines() if "virtio_blk.ko" not in line.split(":")[0]]
    table.write_text("\n".join(lines))
    with pytest.raises(MissingDriver, match="virtio_blk"):
        planned(guest_tree)


def test_built_in_drivers_need_nothing(guest_tree: Path) -> None:
    folder = next((guest_tree / "lib/modules").iterdir())
    (folder / "modules.dep").write_text("")
    builtin = "kernel/drivers/virtio/virtio_pci.ko\nkernel/drivers/block/virtio_blk.ko\n"
    (folder / "modules.builtin").write_text(builtin)
    plan = planned(guest_tree)
    assert not any("initrd" in edit.path for edit in plan.edits)


def test_a_guest_without_a_known_loader_is_refused(guest_tree: Path) -> None:
    (guest_tree / "boot/grub/grub.cfg").unlink()
    with pytest.raises(UnsupportedGuest, match="GRUB") as caught:
        planned(guest_tree)
    assert caught.value.to_dict()["code"] == "unsupported_guest" and caught.value.remedy


def test_disks_in_another_order_are_refused(guest_tree: Path) -> None:
    files = DirectoryFiles(guest_tree)
    with pytest.raises(UnsupportedGuest, match="/dev/sda1"):
        make_plan(describe(files, layout(replace(ROOT, place=(0, 2)))), NOTHING, files)


@pytest.mark.parametrize("content", [b"\x1f\x8b garbage", b"\x28\xb5\x2f\xfd garbage", b"BZh garbage", b"070701", b""])
def test_a_foreign_initramfs_is_refused(guest_tree: Path, content: bytes) -> None:
    guest, _ = inspect(guest_tree)
    (guest_tree / guest.kernels[0].initrd.lstrip("/")).write_bytes(content)
    with pytest.raises(UnsupportedGuest, match="initramfs"):
        planned(guest_tree)


def test_drivers_are_kept_once() -> None:
    text = keep_drivers("# list\nvirtio_blk\n")
    assert text.count("virtio_blk") == 1 and text.endswith("virtio_pci\n")
    assert keep_drivers(text) == text
