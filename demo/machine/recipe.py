"""The recipe of the demo server: Debian packages and a few files of its own, to two raw disks."""

import fcntl
import hashlib
import io
import os
import shutil
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from demo.machine import data
from demo.machine.command import SOURCE_DATE_EPOCH, run
from demo.machine.disk import DiskSpec, embed_grub, make_disk

_HERE = Path(__file__).parent
_MIB = 1024 * 1024

SUITE = "bookworm"
_PACKAGES = ("linux-image-amd64", "initramfs-tools", "busybox-static", "udev", "e2fsprogs", "mount")
SYSTEM = DiskSpec(
    size=1536 * _MIB,
    signature=0x57A7E001,
    uuid="6f0d2a5e-1c1b-4b7e-9d53-0a4b1c2d3e01",
    hash_seed="6f0d2a5e-1c1b-4b7e-9d53-0a4b1c2d3eff",
    label="demo-root",
    bootable=True,
)
DATA = DiskSpec(
    size=512 * _MIB,
    signature=0x57A7E002,
    uuid="6f0d2a5e-1c1b-4b7e-9d53-0a4b1c2d3e02",
    hash_seed="6f0d2a5e-1c1b-4b7e-9d53-0a4b1c2d3efe",
    label="demo-data",
    bootable=False,
)
# The programs that busybox stands in for: init, and what its ifup calls by name.
_BUSYBOX = ("sbin/init", "sbin/ip", "sbin/udhcpc")
# A server has no sound and no graphics: half of the kernel package, which nothing here would load.
_LEFT_OUT = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "/boot/System.map-*",
    *(
        f"/lib/modules/*/kernel/{part}/*"
        for part in (
            "sound",
            "drivers/bluetooth",
            "drivers/comedi",
            "drivers/gpu",
            "drivers/iio",
            "drivers/infiniband",
            "drivers/isdn",
            "drivers/media",
            "drivers/mtd",
            "drivers/net/can",
            "drivers/net/wireless",
            "drivers/staging",
            "drivers/video",
            "fs/ceph",
            "fs/gfs2",
            "fs/ocfs2",
            "net/bluetooth",
            "net/mac80211",
            "net/wireless",
        )
    ),
)


@dataclass(frozen=True)
class MachineFiles:
    """The disks of the demo server, in the order in which it has them."""

    system: Path
    data: Path


def build(directory: Path) -> MachineFiles:
    """Build the demo server into `directory`; at once when this recipe's disks are there already.

    Whoever comes while another process builds waits for it.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_name(f".{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _build(directory)


def _build(directory: Path) -> MachineFiles:
    machine = MachineFiles(directory / "system.img", directory / "data.img")
    stamp = directory / "recipe.sha256"
    digest = recipe_digest()
    if stamp.exists() and stamp.read_text() == digest and machine.system.exists() and machine.data.exists():
        return machine
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as folder:
        work = Path(folder)
        # mmdebstrap enters namespaces in which this folder belongs to another user
        work.chmod(0o755)
        new = work / "new"
        new.mkdir()
        _bootstrap(work)
        # One fakeroot session sees the owners from the archive to the file system, whoever runs it.
        command = ["fakeroot", sys.executable, "-m", "demo.machine.assemble", str(work), str(new)]
        run(command, environment={"PYTHONPATH": str(_HERE.parent.parent)})
        (new / "recipe.sha256").write_text(digest)
        if directory.exists():
            directory.rename(work / "old")
        new.rename(directory)
    return machine


def recipe_digest() -> str:
    """Changes with every file of this folder: the recipe is its own version number."""
    digest = hashlib.sha256()
    for path in sorted(_HERE.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            content = path.read_bytes()
            mode = path.stat().st_mode & 0o111
            digest.update(f"{path.relative_to(_HERE)} {mode:o} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _bootstrap(work: Path) -> None:
    """Debian's essential packages, a kernel and its initramfs, into an archive."""
    overlay = work / "overlay.tar"
    overlay.write_bytes(overlay_archive())
    command = ["mmdebstrap", "--variant=essential", "--quiet", f"--include={','.join(_PACKAGES)}"]
    command += ["--dpkgopt=force-confold", "--dpkgopt=force-unsafe-io", "--skip=output/dev"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
    # Before the kernel's package comes: its initramfs is made once, for this server's hardware.
    command += [f"--essential-hook=tar-in {overlay} /"]
    command += [SUITE, str(work / "root.tar")]
    run(command, environment={"TMPDIR": str(work)})


def overlay_archive() -> bytes:
    """The files of `root/`, owned by root, with their modes and a fixed date."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted((_HERE / "root").rglob("*")):
            info = archive.gettarinfo(path, arcname=str(path.relative_to(_HERE / "root")))
            info.uid = info.gid = 0
            info.uname = info.gname = "root"
            info.mtime = SOURCE_DATE_EPOCH
            info.mode = 0o755 if info.isdir() or info.mode & 0o100 else 0o644
            if info.isdir():
                archive.addfile(info)
            else:
                with path.open("rb") as content:
                    archive.addfile(info, content)
    return buffer.getvalue()


def assemble(work: Path, target: Path) -> None:
    """From the archive to the disks; runs inside a fakeroot session."""
    root = work / "root"
    root.mkdir()
    run(["tar", "--extract", "--numeric-owner", "--same-owner", "-f", str(work / "root.tar"), "-C", str(root)])
    _finish_root(root)
    system = target / "system.img"
    make_disk(system, SYSTEM, root)
    embed_grub(system, work)
    shutil.rmtree(root)
    tree = work / "data"
    tree.mkdir()
    data.write_files(tree)
    _date(tree)
    make_disk(target / "data.img", DATA, tree)


def _finish_root(root: Path) -> None:
    for name in _BUSYBOX:
        (root / name).symlink_to("/bin/busybox")
    scripts = ("etc/network/if-" + name for name in ("pre-up.d", "up.d", "down.d", "post-down.d"))
    for folder in ("data", "dev", *scripts):
        (root / folder).mkdir(parents=True, exist_ok=True)
    kernels = sorted(path.name.removeprefix("vmlinuz-") for path in (root / "boot").glob("vmlinuz-*"))
    if len(kernels) != 1:
        raise ValueError(f"expected one kernel in the demo server, found {kernels}")
    grub = root / "boot/grub"
    shutil.copytree("/usr/lib/grub/i386-pc", grub / "i386-pc", ignore=shutil.ignore_patterns("*.img", "*.exec"))
    menu = (_HERE / "grub.cfg.in").read_text().replace("@UUID@", SYSTEM.uuid).replace("@KERNEL@", kernels[0])
    (grub / "grub.cfg").write_text(menu)
    for path in (grub, root / "data", *(root / name for name in _BUSYBOX)):
        _date(path)


def _date(tree: Path) -> None:
    """Give a tree the recipe's date and root's ownership."""
    for path in (tree, *tree.rglob("*")):
        os.chown(path, 0, 0, follow_symlinks=False)
        os.utime(path, (SOURCE_DATE_EPOCH, SOURCE_DATE_EPOCH), follow_symlinks=False)
