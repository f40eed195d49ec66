"""libguestfs: the appliance in which a guest's file systems are opened, never in this machine's own kernel."""

import errno
import os
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import psutil

from wavelift.guest.bindings import load
from wavelift.guest.errors import ApplianceFailed, DamagedFileSystem, NoSpace, UnsupportedGuest
from wavelift.guest.files import Content, FileEdit, Link

_DEBIAN = Path("/usr/lib/python3/dist-packages")
_TEMPORARY = ".wavelift-new"
_MARGIN = 1024 * 1024
# An initramfs with all drivers and firmware is smaller.
_LARGEST = 1 << 30
_REMEDY = "see the gateway's log; libguestfs-test-tool shows whether appliances start on that machine at all"


def load_binding() -> ModuleType:
    files = {"libguestfsmod": "libguestfsmod*.so", "guestfs": "guestfs.py"}
    return load(files, "libguestfs-tools and python3-guestfs")


class Appliance:
    """A started appliance with the guest's disks; a `GuestFiles` once something is mounted."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        # By mount point, whether files there are written in place.
        self._mounted: dict[str, bool] = {}
        # What was read since the last mount: each call costs a round trip into an emulated machine.
        self._read: dict[str, bytes | None] = {}

    def mount(self, device: str, point: str, *, writable: bool, in_place: bool = False) -> None:
        """`in_place`: a file that is there keeps what this cannot copy to another: the access list of NTFS."""
        mount = self.handle.mount if writable else self.handle.mount_ro
        try:
            mount(device, point)
        except RuntimeError as error:
            raise DamagedFileSystem(
                f"the file system of {point} ({device}) cannot be mounted: {_reason(error)}",
                "check it on the source (fsck, xfs_repair, btrfs check) and replicate again",
            ) from error
        self._mounted[point] = in_place

    def umount_all(self) -> None:
        self.handle.umount_all()
        self._mounted.clear()
        self._read.clear()

    def is_file(self, path: str) -> bool:
        return self._leads_to(self.handle.is_file, path)

    def read(self, path: str) -> bytes | None:
        if path not in self._read:
            self._read[path] = self._download(path)
        return self._read[path]

    def _download(self, path: str) -> bytes | None:
        if not self.is_file(path):
            return None
        if (size := int(self.handle.filesize(path))) > _LARGEST:
            raise UnsupportedGuest(
                f"{path} has {size} bytes, which no file of a boot loader, a kernel or a configuration has",
                "look at that file on the source, and move it away",
            )
        with tempfile.TemporaryDirectory(prefix="wavelift-guest-") as scratch:
            target = Path(scratch) / "content"
            self.handle.download(path, str(target))
            return target.read_bytes()

    def head(self, path: str, size: int) -> bytes | None:
        """The first bytes of a file that may be too large to be read."""
        return bytes(self.handle.pread(path, size, 0)) if self.is_file(path) else None

    def names(self, folder: str) -> list[str]:
        return sorted(self.handle.ls(folder)) if self._leads_to(self.handle.is_dir, folder) else []

    def link(self, path: str) -> str | None:
        return str(self.handle.readlink(path)) if self.handle.is_symlink(path) else None

    def _leads_to(self, kind: Callable[..., bool], path: str) -> bool:
        """Links without end lead nowhere."""
        try:
            return bool(kind(path, followsymlinks=True))
        except RuntimeError as error:
            if os.strerror(errno.ELOOP) in str(error):
                return False
            raise

    def check_space(self, edits: Sequence[FileEdit]) -> None:
        """Each file system must take what grows in it, and the largest new file beside the old one."""
        by_point: dict[str, list[FileEdit]] = {}
        for edit in edits:
            real = self._real(edit.path)
            by_point.setdefault(self._point_of(real), []).append(edit)
        for point, group in by_point.items():
            growth = sum(max(0, _size(edit.after) - _size(edit.before)) for edit in group)
            needed = growth + max(_size(edit.after) for edit in group) + _MARGIN
            space = self.handle.statvfs(point)
            free = space["bavail"] * space["frsize"]
            if free < needed:
                raise NoSpace(
                    f"{point} has {free} bytes free, {needed} are needed",
                    f"make room in {point} on the source (old kernels: apt autoremove) and replicate again",
                )

    def _point_of(self, real: str) -> str:
        return max((point for point in self._mounted if real.startswith(point.rstrip("/") + "/")), key=len)

    def apply(self, edit: FileEdit) -> None:
        """Files are written under a temporary name, then renamed; on NTFS in place."""
        if edit.after is None:
            self.handle.rm_f(edit.path)
        elif isinstance(edit.after, Link):
            self.handle.mkdir_p(str(PurePosixPath(edit.path).parent))
            self.handle.ln_sf(edit.after.target, edit.path)
        elif isinstance(edit.before, bytes):
            self._replace(self._real(edit.path), edit.after)
        else:
            self.handle.mkdir_p(str(PurePosixPath(edit.path).parent))
            self.handle.rm_f(edit.path)
            self._make(edit.path, edit.after, edit.mode)
        self._read.clear()

    def _replace(self, real: str, content: bytes) -> None:
        """With the old file's owner, mode and labels."""
        if self._mounted[self._point_of(real)]:
            self._upload(real, content)
            return
        old = self.handle.statns(real)
        new = self._upload(real + _TEMPORARY, content)
        self.handle.chown(old["st_uid"], old["st_gid"], new)
        self.handle.chmod(stat.S_IMODE(old["st_mode"]), new)
        for attribute in self.handle.lgetxattrs(real):
            value = attribute["attrval"]
            self.handle.lsetxattr(attribute["attrname"], value, len(value), new)
        self.handle.mv(new, real)

    def _make(self, path: str, content: bytes, mode: int) -> None:
        new = self._upload(path + _TEMPORARY, content)
        self.handle.chown(0, 0, new)
        self.handle.chmod(mode, new)
        self.handle.mv(new, path)

    def _upload(self, new: str, content: bytes) -> str:
        with tempfile.NamedTemporaryFile(prefix="wavelift-guest-") as scratch:
            scratch.write(content)
            scratch.flush()
            self.handle.upload(scratch.name, new)
        return new

    def _real(self, path: str) -> str:
        """Where a path leads, as far as it is there."""
        folder = PurePosixPath(path)
        if self.handle.exists(path):
            return str(self.handle.realpath(path))
        while not self.handle.exists(str(folder)):
            folder = folder.parent
        return str(PurePosixPath(self.handle.realpath(str(folder))) / PurePosixPath(path).relative_to(folder))


def _reason(error: RuntimeError) -> str:
    """What mount(8) said, without libguestfs' names for it."""
    return str(error).rpartition(": ")[2].strip().rstrip(".")


def _size(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else 0


@contextmanager
def launched(disks: Sequence[Path], *, writable: bool = True) -> Iterator[Appliance]:
    """An appliance with `disks` as /dev/sda, /dev/sdb, ...; its end is checked too. Where they are not writable, what
    is written to them (a file system's journal is replayed) is forgotten."""
    binding = load_binding()
    handle: Any = binding.GuestFS(python_return_dict=True)
    try:
        handle.set_backend("direct")
        # No machine that this runs on can be relied upon to nest KVM, cloud instances least of all.
        handle.set_backend_settings(["force_tcg"])
        handle.set_autosync(True)
        for disk in disks:
            # The format is never guessed from the content: that belongs to the guest.
            path = str(disk.resolve())
            handle.add_drive_opts(path, format="raw", readonly=not writable, cachemode="writeback")
        handle.launch()
        yield Appliance(handle)
        handle.shutdown()
    except RuntimeError as error:
        raise ApplianceFailed(f"libguestfs: {error}", _REMEDY) from error
    finally:
        handle.close()


def kill_children() -> None:
    """End every process that this one started (the appliance's QEMU, its helper, depmod)."""
    for child in psutil.Process(os.getpid()).children(recursive=True):
        try:
            child.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
