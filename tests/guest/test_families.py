"""Whole guests of other distributions, as trees: which files a preparation changes, and what of them."""

import bz2
import gzip
import lzma
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import zstandard

from tests.guest.conftest import MODULES, applied
from wavelift.guest.errors import MissingDriver, UnsupportedGuest
from wavelift.guest.facts import Devices, FileSystem, Firmware, Layout, describe
from wavelift.guest.files import DirectoryFiles, FileEdit
from wavelift.guest.initramfs import cpio, image, segments
from wavelift.guest.initramfs.drivers import parse_tables
from wavelift.guest.initramfs.waits import NOTHING
from wavelift.guest.journal import undone
from wavelift.guest.plan import check_prepared, check_written, make_plan
from wavelift.manifest.wishes import Wishes

ROOT, SWAP = "0e1f-root", "0e1f-swap"
DEVICES = Devices({(0, 1): "0e1f-esp", (0, 2): ROOT, (0, 3): SWAP})
FS = FileSystem("/dev/sda2", "xfs", ROOT, (0, 2))
ESP = FileSystem("/dev/sda1", "vfat", "0e1f-esp", (0, 1))
FSTAB = "/dev/sda2 / xfs defaults 0 0\n/dev/sda3 none swap sw 0 0\n"
Pack = Callable[[bytes], bytes]


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def xz(data: bytes) -> bytes:
    return lzma.compress(data, check=lzma.CHECK_CRC32)


def lz4(data: bytes) -> bytes:
    return subprocess.run(["lz4", "-l", "-c"], input=data, capture_output=True, check=True).stdout


def plain(data: bytes) -> bytes:
    return data


@dataclass(frozen=True)
class Family:
    """`initramfs`: marks by which its tool is known. `modules`: how the package has them, by suffix. `files` by path.
    `changed`: what a preparation is to change beside the initramfs and fstab."""

    os: str
    initrd: str
    initramfs: Mapping[str, bytes]
    pack: Pack
    modules: tuple[str, Pack]
    files: Mapping[str, str]
    changed: tuple[str, ...]
    firmware: Firmware = Firmware.BIOS
    more: tuple[str, ...] = field(default=())


DRACUT = {"init": b"#!/bin/sh\n", "usr/lib/dracut/build-parameter.txt": b"--hostonly\n"}
TOOLS = {"init": b"#!/bin/sh\n", "scripts/functions": b"", "conf/modules": b"ext4"}
ARCH = {"init": b"#!/bin/ash\n", "init_functions": b"", "usr/bin/udevadm": b"\x7fELF"}
MENU = "menuentry 'x' {\n\tlinux16 /vmlinuz-@ root=/dev/sda2 ro crashkernel=auto\n\tinitrd16 /i\n}\n"
BLS = "title x\nlinux /vmlinuz-@\noptions root=/dev/sda2 ro resume=/dev/sda3\n"
IFCFG = "TYPE=Ethernet\nDEVICE=ens192\nHWADDR=00:50:56:aa:bb:cc\nBOOTPROTO=dhcp\nONBOOT=yes\n"
KEYFILE = "[connection]\nid=a\ntype=ethernet\ninterface-name=ens192\n\n[ethernet]\nmac-address=00:50:56:AA:BB:CC\n"
NETPLAN = "network:\n  version: 2\n  ethernets:\n    ens192: {match: {macaddress: '00:50:56:aa:bb:cc'}, dhcp4: true}\n"
DEFAULTS = 'GRUB_CMDLINE_LINUX="crashkernel=auto"\n'
RELEASE = 'ID="{}"\nID_LIKE="{}"\nVERSION_ID="{}"\nPRETTY_NAME="{}"\n'
NAMES = ("/etc/systemd/network/10-wavelift-ens192.link", "/etc/udev/rules.d/70-wavelift-net.rules")
KEPT = ("/etc/dracut.conf.d/wavelift.conf",)
SCRIPTS, KEYS = "/etc/sysconfig/network-scripts/ifcfg-ens192", "/etc/NetworkManager/system-connections/a.nmconnection"


def red_hat_7(os: str) -> Family:
    files = {"/boot/grub2/grub.cfg": MENU, "/etc/default/grub": DEFAULTS, SCRIPTS: IFCFG}
    return Family(os, "/boot/initramfs-@.img", DRACUT, gzip.compress, (".xz", xz), files, (*files, *KEPT, *NAMES))


def red_hat_8(os: str) -> Family:
    files = {"/boot/loader/entries/m-@.conf": BLS, "/etc/default/grub": DEFAULTS, SCRIPTS: IFCFG}
    silent = {"/boot/grub2/grub.cfg": "blscfg\n"}
    changed = (*files, *KEPT, *NAMES)
    return Family(os, "/boot/initramfs-@.img", DRACUT, gzip.compress, (".xz", xz), {**files, **silent}, changed)


def red_hat_9(os: str) -> Family:
    files = {"/boot/loader/entries/m-@.conf": BLS, "/etc/default/grub": DEFAULTS, KEYS: KEYFILE}
    devices = "/etc/lvm/devices/system.devices"
    silent = {
        "/boot/grub2/grub.cfg": "blscfg\n",
        "/boot/efi/EFI/redhat/grubx64.efi": "MZ",
        devices: "IDTYPE=sys_wwid\n",
    }
    changed = (*files, *KEPT, *NAMES, "/boot/efi/EFI/BOOT/BOOTX64.EFI", devices)
    more = ("/etc/lvm/devices/wavelift-system.devices",)
    return Family(
        os, "/boot/initramfs-@.img", DRACUT, zstd, (".xz", xz), {**files, **silent}, changed, Firmware.UEFI, more
    )


def ubuntu(os: str, pack: Pack, modules: tuple[str, Pack]) -> Family:
    netplan = "/etc/netplan/50-cloud-init.yaml"
    files = {"/boot/grub/grub.cfg": MENU, "/etc/default/grub": DEFAULTS, netplan: NETPLAN}
    files["/etc/initramfs-tools/modules"] = "# x\n"
    silent = {"/etc/cloud/cloud.cfg": "users: [default]\n"}
    changed = (*files, *NAMES, "/etc/cloud/cloud.cfg.d/99-wavelift.cfg")
    return Family(os, "/boot/initrd.img-@", TOOLS, pack, modules, {**files, **silent}, changed)


def suse(os: str, pack: Pack, modules: tuple[str, Pack]) -> Family:
    wicked = "/etc/sysconfig/network/ifcfg-ens192"
    files = {"/boot/grub2/grub.cfg": MENU, "/etc/default/grub": DEFAULTS, wicked: "LLADDR='00:50:56:aa:bb:cc'\n"}
    return Family(os, "/boot/initrd-@", DRACUT, pack, modules, files, (*files, *KEPT, *NAMES))


FAMILIES = {
    "RHEL 7": red_hat_7(RELEASE.format("rhel", "fedora", "7.9", "Red Hat Enterprise Linux Server 7.9 (Maipo)")),
    "CentOS 7": red_hat_7(RELEASE.format("centos", "rhel fedora", "7", "CentOS Linux 7 (Core)")),
    "Alibaba Cloud Linux 2": red_hat_7(RELEASE.format("alinux", "rhel fedora centos", "2.1903", "Alibaba Cloud Linux")),
    "Rocky 8": red_hat_8(RELEASE.format("rocky", "rhel centos fedora", "8.10", "Rocky Linux 8.10 (Green Obsidian)")),
    "Anolis 8": red_hat_8(RELEASE.format("anolis", "rhel fedora centos", "8.9", "Anolis OS 8.9")),
    "Alibaba Cloud Linux 3": red_hat_8(
        RELEASE.format("alinux", "rhel fedora centos anolis", "3", "Alibaba Cloud Linux 3")
    ),
    "Alma 9": red_hat_9(RELEASE.format("almalinux", "rhel centos fedora", "9.4", "AlmaLinux 9.4 (Seafoam Ocelot)")),
    "SLES 12": suse(RELEASE.format("sles", "", "12.5", "SUSE Linux Enterprise Server 12 SP5"), xz, ("", plain)),
    "SLES 15": suse(RELEASE.format("sles", "suse", "15.5", "SUSE Linux Enterprise Server 15"), zstd, (".zst", zstd)),
    "Ubuntu 18": ubuntu(RELEASE.format("ubuntu", "debian", "18.04", "Ubuntu 18.04.6 LTS"), gzip.compress, ("", plain)),
    "Ubuntu 20": ubuntu(RELEASE.format("ubuntu", "debian", "20.04", "Ubuntu 20.04.6 LTS"), lz4, ("", plain)),
    "Ubuntu 24": ubuntu(RELEASE.format("ubuntu", "debian", "24.04", "Ubuntu 24.04.1 LTS"), zstd, (".zst", zstd)),
}


def version() -> str:
    return sorted(path.name for path in MODULES.iterdir() if (path / "modules.dep").exists())[-1]


def made(root: Path, family: Family, *, drivers: bool = True) -> Path:
    """The tree, with this machine's own modules as the family's package has them."""
    suffix, pack = family.modules
    source, target = MODULES / version(), root / "usr/lib/modules" / version()
    target.mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    tables = parse_tables(version(), (source / "modules.dep").read_text(), (source / "modules.builtin").read_text())
    dep = (source / "modules.dep").read_text()
    for path in image.needed_modules(tables) if drivers else ():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / f"{path}{suffix}").write_bytes(pack((source / path).read_bytes()))
    if suffix:
        dep = dep.replace(".ko", f".ko{suffix}")
    if not drivers:
        dep = "".join(line for line in dep.splitlines(keepends=True) if "virtio_blk.ko" not in line)
    (target / "modules.dep").write_text(dep)
    shutil.copy(source / "modules.builtin", target)
    entries = [cpio.folder("."), cpio.folder("usr"), cpio.folder("usr/lib")]
    entries += [cpio.Entry("lib", 0o120777, b"usr/lib")]
    entries += [cpio.file(name, content) for name, content in family.initramfs.items()]
    texts = {"/etc/os-release": family.os, "/etc/fstab": FSTAB, f"/boot/vmlinuz-{version()}": "", **family.files}
    for name, text in texts.items():
        path = root / name.replace("@", version()).lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("@", version()))
    (root / family.initrd.replace("@", version()).lstrip("/")).write_bytes(family.pack(cpio.write_archive(entries)))
    return root


def layout(family: Family) -> Layout:
    mounts = {"/": FS, **({"/boot/efi": ESP} if family.firmware is Firmware.UEFI else {})}
    return Layout(FS, mounts, DEVICES, family.firmware)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_changed_is_what_has_to_be(tmp_path: Path, name: str) -> None:
    family = FAMILIES[name]
    root = made(tmp_path / "guest", family)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    files, initrd = DirectoryFiles(root), family.initrd.replace("@", version())
    guest = describe(files, layout(family))
    assert guest.warnings == () and [kernel.initrd for kernel in guest.kernels] == [initrd]
    plan = make_plan(guest, Wishes(), files)
    assert plan.warnings == ()
    wanted = {path.replace("@", version()) for path in (*family.changed, *family.more)}
    assert {edit.path for edit in plan.edits} == {initrd, "/etc/fstab", "/var/lib/wavelift/prepare-1.json", *wanted}
    applied(root, plan.edits)
    check_written(plan, files)
    check_prepared(describe(files, layout(family)), Wishes(), files)

    content = files.read(initrd)
    assert content is not None
    found = image.read(content, version())
    assert {"virtio_pci", "virtio_blk", "nvme"} <= set(found.modules())
    fstab = (root / "etc/fstab").read_text()
    assert fstab == f"UUID={ROOT} / xfs defaults 0 0\nUUID={SWAP} none swap sw 0 0\n"
    applied(root, undone(files))
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_what_dracut_made_for_its_own_machine_waits_for_no_disk_of_it(tmp_path: Path) -> None:
    hooks = "var/lib/dracut/hooks/initqueue/finished"
    own = {
        "etc/cmdline.d/95root-dev.conf": b" root=/dev/sda2 rootfstype=xfs\n",
        f"{hooks}/devexists-\\x2fdev\\x2fdisk\\x2fby-path\\x2fpci.sh": b"[ -e /dev/disk/by-path/pci-0000:03-part2 ]\n",
        f"{hooks}/devexists-\\x2fdev\\x2fvg\\x2froot.sh": b"[ -e /dev/vg/root ]\n",
    }
    family = FAMILIES["Alma 9"]
    changed = Family(**{**vars(family), "initramfs": {**family.initramfs, **own}})
    root = made(tmp_path / "guest", changed)
    files = DirectoryFiles(root)
    plan = make_plan(describe(files, layout(family)), Wishes(), files)
    applied(root, plan.edits)
    found = segments.merged(segments.split(files.read(f"/boot/initramfs-{version()}.img") or b""))
    assert found["etc/cmdline.d/95root-dev.conf"].content == f" root=UUID={ROOT} rootfstype=xfs\n".encode()
    waits = sorted((path, entry.content) for path, entry in found.items() if "devexists" in path)
    assert [content for _, content in waits] == [NOTHING, b"[ -e /dev/vg/root ]\n"]


def test_a_list_of_lvm_in_the_initramfs_is_not_used(tmp_path: Path) -> None:
    own = {"etc/lvm/devices/system.devices": b"IDTYPE=sys_wwid\n", "etc/lvm/lvmlocal.conf": b"local {}\n"}
    family = FAMILIES["Alma 9"]
    root = made(tmp_path / "guest", Family(**{**vars(family), "initramfs": {**family.initramfs, **own}}))
    files = DirectoryFiles(root)
    applied(root, make_plan(describe(files, layout(family)), Wishes(), files).edits)
    check_prepared(describe(files, layout(family)), Wishes(), files)
    found = segments.merged(segments.split(files.read(f"/boot/initramfs-{version()}.img") or b""))
    text = found["etc/lvm/lvmlocal.conf"].content.decode()
    assert text.startswith("local {}\n") and text.count("use_devicesfile = 0") == 1


def test_names_of_cards_go_into_an_initramfs_that_has_their_driver(tmp_path: Path) -> None:
    path = f"usr/lib/modules/{version()}/kernel/drivers/net/virtio_net.ko"
    family = FAMILIES["Ubuntu 24"]
    changed = Family(**{**vars(family), "initramfs": {**family.initramfs, path: b"driver"}})
    root = made(tmp_path / "guest", changed)
    files = DirectoryFiles(root)
    applied(root, make_plan(describe(files, layout(family)), Wishes(), files).edits)
    found = segments.merged(segments.split(files.read(f"/boot/initrd.img-{version()}") or b""))
    for name in NAMES:
        assert found[name.lstrip("/")].content == files.read(name)


def test_a_kernel_without_virtio_is_refused_by_name(tmp_path: Path) -> None:
    root = made(tmp_path / "guest", FAMILIES["SLES 12"], drivers=False)
    files = DirectoryFiles(root)
    with pytest.raises(MissingDriver, match=f"kernel {version()} has no driver virtio_blk"):
        make_plan(describe(files, layout(FAMILIES["SLES 12"])), Wishes(), files)


@pytest.mark.parametrize("marks", [{"init": b"", "bin/busybox": b""}, {"linuxrc": b""}])
def test_an_initramfs_of_another_tool_is_refused(tmp_path: Path, marks: dict[str, bytes]) -> None:
    family = FAMILIES["Rocky 8"]
    root = made(tmp_path / "guest", Family(**{**vars(family), "initramfs": marks}))
    files = DirectoryFiles(root)
    with pytest.raises(UnsupportedGuest, match="none of initramfs-tools, dracut, mkinitcpio"):
        make_plan(describe(files, layout(family)), Wishes(), files)


def test_bzip2_and_mkinitcpio(tmp_path: Path) -> None:
    family = Family(**{**vars(FAMILIES["SLES 12"]), "initramfs": ARCH, "pack": bz2.compress})
    root = made(tmp_path / "guest", family)
    (root / "etc/mkinitcpio.conf").write_text("MODULES=(btrfs)\nHOOKS=(base udev)\n")
    files = DirectoryFiles(root)
    plan = make_plan(describe(files, layout(family)), Wishes(), files)
    edits: dict[str, FileEdit] = {edit.path: edit for edit in plan.edits}
    assert edits["/etc/mkinitcpio.conf"].after == b"MODULES=(btrfs virtio_pci virtio_blk)\nHOOKS=(base udev)\n"
    assert "/etc/dracut.conf.d/wavelift.conf" not in edits
