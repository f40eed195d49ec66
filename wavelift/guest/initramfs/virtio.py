"""Every kernel finds its disks on virtio: its initramfs has the drivers, and so has the next one that is made."""

from __future__ import annotations

import re

from wavelift.guest.draft import Draft
from wavelift.guest.errors import PostconditionFailed, UnsupportedGuest
from wavelift.guest.evidence import REMEDY, Check
from wavelift.guest.facts import Devices, Guest, Kernel
from wavelift.guest.files import GuestFiles
from wavelift.guest.initramfs import image
from wavelift.guest.initramfs.drivers import REQUIRED, module_name
from wavelift.guest.rewritten import Rewritten
from wavelift.guest.wishes import Wishes

MODULES_FILE = "/etc/initramfs-tools/modules"
_RESUME = "/etc/initramfs-tools/conf.d/resume"
_DATE_OF_SEGMENTS = 0


def plan(guest: Guest, wishes: Wishes, draft: Draft) -> None:
    for kernel in guest.kernels:
        data = _required(draft, kernel.initrd)

        def read_module(path: str, folder: str = kernel.folder) -> bytes:
            return _required(draft, f"{folder}/{path}")

        found = image.read(data, kernel.version)
        segment = image.extension(found, kernel.modules, read_module, _DATE_OF_SEGMENTS)
        if segment:
            draft.write(kernel.initrd, image.append(data, segment), "virtio drivers and module tables")
    listed = draft.text(MODULES_FILE)
    if listed is not None:
        draft.write(MODULES_FILE, keep_drivers(listed), "later rebuilds of the initramfs keep the drivers")
    resume = draft.text(_RESUME)
    if resume is not None:
        draft.write(_RESUME, rewrite_resume(resume, guest.devices).text, "resume device by UUID")


def check(guest: Guest, wishes: Wishes, files: GuestFiles) -> list[Check]:
    return [_drivers(kernel, files) for kernel in guest.kernels]


def keep_drivers(text: str) -> str:
    """/etc/initramfs-tools/modules with the drivers; entries may carry arguments and comments."""
    listed = {line.split()[0] for line in text.splitlines() if line.split() and not line.startswith("#")}
    missing = [name for name in REQUIRED if name not in listed]
    if not missing:
        return text
    if text and not text.endswith("\n"):
        text += "\n"
    return text + "# the disks of the cloud\n" + "".join(f"{name}\n" for name in missing)


def rewrite_resume(text: str, devices: Devices) -> Rewritten:
    """initramfs-tools' conf.d/resume."""
    match = re.search(r"^RESUME=(/dev/\S+)", text, re.M)
    uuid = devices.uuid(match[1]) if match else None
    if match is None or uuid is None:
        return Rewritten(text)
    return Rewritten(text[: match.start(1)] + f"UUID={uuid}" + text[match.end(1) :])


def _drivers(kernel: Kernel, files: GuestFiles) -> Check:
    data = files.read(kernel.initrd)
    if data is None:
        raise PostconditionFailed(f"{kernel.initrd} is gone", REMEDY)
    found = image.read(data, kernel.version)
    lacks = image.missing(found, kernel.modules)
    if lacks:
        raise PostconditionFailed(f"{kernel.initrd} lacks {', '.join(lacks)}", REMEDY)
    present = found.modules()
    shown = []
    for path in image.needed_modules(kernel.modules):
        content = found.files[present[module_name(path)]].content
        if content != files.read(f"{kernel.folder}/{path}"):
            raise PostconditionFailed(f"{path} in {kernel.initrd} is not the kernel package's own", REMEDY)
        shown.append(module_name(path))
    evidence = f"{', '.join(shown)} in {kernel.initrd}" if shown else "built into the kernel"
    return Check(f"drivers of kernel {kernel.version}", evidence)


def _required(files: GuestFiles, path: str) -> bytes:
    content = files.read(path)
    if content is None:
        raise UnsupportedGuest(
            f"{path} is named by the guest's own tables and is not there",
            "repair the kernel package on the source (apt install --reinstall) and replicate again",
        )
    return content
