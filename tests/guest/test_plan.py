"""Planning on a plain tree: what is missing is planned, and once it is there, nothing is."""

from pathlib import Path

import pytest

from tests.guest.conftest import plain_initramfs
from wavelift.guest import checks, initramfs
from wavelift.guest.bootconfig import Devices
from wavelift.guest.errors import MissingDriver, PostconditionFailed, UnsupportedGuest
from wavelift.guest.files import DirectoryFiles
from wavelift.guest.plan import Guest, Plan, describe, keep_drivers, make_plan

ROOT = "11111111-aaaa"
DEVICES = Devices({(0, 1): ROOT, (0, 5): "22222222-bbbb", (1, 1): "33333333-cccc"})


def inspect(tree: Path) -> tuple[Guest, DirectoryFiles]:
    files = DirectoryFiles(tree)
    return describe(files, DEVICES, (0, 1), ROOT), files


def apply(plan: Plan, tree: Path) -> None:
    for edit in plan.edits:
        (tree / edit.path.lstrip("/")).write_bytes(edit.after)


def test_plan_apply_check(guest_tree: Path) -> None:
    guest, files = inspect(guest_tree)
    assert guest.os == "Debian GNU/Linux 12 (bookworm)"
    plan = make_plan(guest, files)
    kernel = guest.kernels[0]
    assert {edit.path for edit in plan.edits} == {
        kernel.initrd,
        "/etc/fstab",
        "/boot/grub/grub.cfg",
        "/etc/default/grub",
        "/etc/initramfs-tools/modules",
        "/etc/initramfs-tools/conf.d/resume",
    }
    assert plan.edits[0].path == kernel.initrd, "drivers come first"
    with pytest.raises(PostconditionFailed, match="still to change"):
        checks.prepared(guest, plan, files)
    with pytest.raises(PostconditionFailed, match="does not hold"):
        checks.written(plan, files)

    apply(plan, guest_tree)
    again = make_plan(*inspect(guest_tree))
    assert again.edits == ()
    assert checks.written(plan, files)
    shown = checks.prepared(guest, again, files)
    assert [check.name for check in shown] == [f"drivers of kernel {kernel.version}", "root by UUID", "fstab by UUID"]


def test_the_segment_is_appended_and_complete(guest_tree: Path) -> None:
    guest, files = inspect(guest_tree)
    edit = make_plan(guest, files).edits[0]
    assert edit.after.startswith(plain_initramfs()), "what was there is not touched"
    image = initramfs.read(edit.after, guest.kernels[0].version)
    assert {"virtio", "virtio_ring", "virtio_pci", "virtio_blk", "virtio_scsi", "scsi_mod"} <= set(image.modules())
    assert image.load_list() == b"ext4\nvirtio_pci\nvirtio_blk\n"
    alias = image.table("modules.alias")
    assert alias is not None and b"virtio_blk" in alias and b"virtio_pci" in alias
    assert f"usr/lib/modules/{guest.kernels[0].version}" in image.files


def test_a_missing_table_entry_counts_as_missing(guest_tree: Path) -> None:
    guest, files = inspect(guest_tree)
    kernel = guest.kernels[0]
    image = initramfs.read(make_plan(guest, files).edits[0].after, kernel.version)
    del image.files[f"{image.folder}/modules.dep"]
    assert "virtio_blk in modules.dep" in initramfs.missing(image, kernel.modules)


def test_a_module_lost_from_the_initramfs_fails_the_check(guest_tree: Path) -> None:
    guest, files = inspect(guest_tree)
    plan = make_plan(guest, files)
    apply(plan, guest_tree)
    (guest_tree / plan.edits[0].path.lstrip("/")).write_bytes(plan.edits[0].before)
    with pytest.raises(PostconditionFailed, match="lacks module virtio"):
        checks.prepared(guest, Plan((), ()), files)


def test_no_driver_anywhere(guest_tree: Path) -> None:
    table = next((guest_tree / "lib/modules").iterdir()) / "modules.dep"
    lines = [line for line in table.read_text().splitlines() if "virtio_blk.ko" not in line.split(":")[0]]
    table.write_text("\n".join(lines))
    with pytest.raises(MissingDriver, match="virtio_blk"):
        make_plan(*inspect(guest_tree))


def test_built_in_drivers_need_nothing(guest_tree: Path) -> None:
    folder = next((guest_tree / "lib/modules").iterdir())
    (folder / "modules.dep").write_text("")
    builtin = "kernel/drivers/virtio/virtio_pci.ko\nkernel/drivers/block/virtio_blk.ko\n"
    (folder / "modules.builtin").write_text(builtin)
    plan = make_plan(*inspect(guest_tree))
    assert not any("initrd" in edit.path for edit in plan.edits)


@pytest.mark.parametrize(
    ("gone", "reason"),
    [("boot/grub/grub.cfg", "GRUB"), ("boot/grub/i386-pc/normal.mod", "UEFI"), ("etc/fstab", None)],
)
def test_what_is_not_handled_is_refused(guest_tree: Path, gone: str, reason: str | None) -> None:
    (guest_tree / gone).unlink()
    if gone.endswith(".mod"):
        (guest_tree / gone).parent.rmdir()
    if reason is None:
        assert inspect(guest_tree)
        return
    with pytest.raises(UnsupportedGuest, match=reason) as caught:
        inspect(guest_tree)
    assert caught.value.to_dict()["code"] == "unsupported_guest" and caught.value.remedy


def test_disks_in_another_order_are_refused(guest_tree: Path) -> None:
    with pytest.raises(UnsupportedGuest, match="/dev/sda1"):
        describe(DirectoryFiles(guest_tree), DEVICES, (0, 2), ROOT)


@pytest.mark.parametrize("content", [b"\x1f\x8b garbage", b"\x28\xb5\x2f\xfd garbage", b"BZh garbage", b"070701", b""])
def test_a_foreign_initramfs_is_refused(guest_tree: Path, content: bytes) -> None:
    guest, files = inspect(guest_tree)
    (guest_tree / guest.kernels[0].initrd.lstrip("/")).write_bytes(content)
    with pytest.raises(UnsupportedGuest, match="initramfs"):
        make_plan(guest, files)


def test_drivers_are_kept_once() -> None:
    text = keep_drivers("# list\nvirtio_blk\n")
    assert text.count("virtio_blk") == 1 and text.endswith("virtio_pci\n")
    assert keep_drivers(text) == text
