"""Every kernel finds its disks on virtio: its initramfs has the drivers, and so has the next one that is made."""

from __future__ import annotations

import re

from wavelift.guest.draft import Draft
from wavelift.guest.errors import PostconditionFailed, UnsupportedGuest
from wavelift.guest.evidence import REMEDY, Check
from wavelift.guest.facts import Devices, Guest, Kernel
from wavelift.guest.files import GuestFiles
from wavelift.guest.initramfs import image, segments, volumes, waits
from wavelift.guest.initramfs.drivers import REQUIRED, module_name, unpacked
from wavelift.guest.network import names
from wavelift.guest.rewritten import Rewritten
from wavelift.manifest.wishes import Wishes

MODULES_FILE = "/etc/initramfs-tools/modules"
_DRACUT_FOLDER = "/etc/dracut.conf.d"
_DRACUT_FILE = f"{_DRACUT_FOLDER}/wavelift.conf"
_MKINITCPIO_FILE = "/etc/mkinitcpio.conf"
_RESUME = "/etc/initramfs-tools/conf.d/resume"
_CARDS = "virtio_net"
_DATE_OF_SEGMENTS = 0
_LATER = "later rebuilds of the initramfs keep the drivers"


def plan(guest: Guest, wishes: Wishes, draft: Draft) -> None:
    tools = set()
    for kernel in guest.kernels:
        if not kernel.modules.has(_CARDS):
            draft.warn(f"kernel {kernel.version} has no driver {_CARDS}: it boots, and no network reaches it")
        data = _required(draft, kernel.initrd)

        def read_module(path: str, folder: str = kernel.folder) -> bytes:
            return _required(draft, f"{folder}/{path}")

        found = image.read(data, kernel.version)
        tools.add(found.tool)
        more = image.extension(found, kernel.modules, read_module, _others(guest, found, draft), _DATE_OF_SEGMENTS)
        if more:
            draft.write(kernel.initrd, segments.extended(data, more), "virtio drivers and module tables")
    _keep(tools, draft)
    resume = draft.text(_RESUME)
    if resume is not None:
        draft.write(_RESUME, rewrite_resume(resume, guest.devices).text, "resume device by UUID")


def check(guest: Guest, wishes: Wishes, files: GuestFiles) -> list[Check]:
    return [_drivers(guest, kernel, files) for kernel in guest.kernels]


def _others(guest: Guest, found: image.Initramfs, files: GuestFiles) -> dict[str, bytes]:
    """What it needs beside drivers. Cards that get their names in the initramfs get no others later."""
    named = names.files_of(files) if _CARDS in found.modules() else {}
    own = waits.rewritten(found, guest.devices) | volumes.without_list(found)
    return {path.lstrip("/"): content for path, content in named.items()} | own


def _keep(tools: set[image.Tool], draft: Draft) -> None:
    listed = draft.text(MODULES_FILE)
    if listed is not None:
        draft.write(MODULES_FILE, keep_drivers(listed), _LATER)
    if image.Tool.DRACUT in tools:
        text = f'# The disks of the cloud, by Wavelift.\nadd_drivers+=" {" ".join(REQUIRED)} "\n'
        draft.write(_DRACUT_FILE, text, _LATER)
    conf = draft.text(_MKINITCPIO_FILE)
    if conf is not None:
        draft.write(_MKINITCPIO_FILE, keep_in_mkinitcpio(conf), _LATER)


def keep_drivers(text: str) -> str:
    """/etc/initramfs-tools/modules with the drivers; entries may carry arguments and comments."""
    listed = {line.split()[0] for line in text.splitlines() if line.split() and not line.startswith("#")}
    missing = [name for name in REQUIRED if name not in listed]
    if not missing:
        return text
    if text and not text.endswith("\n"):
        text += "\n"
    return text + "# the disks of the cloud\n" + "".join(f"{name}\n" for name in missing)


def keep_in_mkinitcpio(text: str) -> str:
    """mkinitcpio.conf, whose last MODULES=(...) holds."""
    found = list(re.finditer(r"^MODULES=\(([^)]*)\)", text, re.M))
    if not found:
        return text + ("" if text.endswith("\n") else "\n") + f"MODULES=({' '.join(REQUIRED)})\n"
    last = found[-1]
    missing = [name for name in REQUIRED if name not in last[1].split()]
    return text[: last.end(1)] + "".join(f" {name}" for name in missing) + text[last.end(1) :]


def rewrite_resume(text: str, devices: Devices) -> Rewritten:
    """initramfs-tools' conf.d/resume."""
    match = re.search(r"^RESUME=(/dev/\S+)", text, re.M)
    uuid = devices.uuid(match[1]) if match else None
    if match is None or uuid is None:
        return Rewritten(text)
    return Rewritten(text[: match.start(1)] + f"UUID={uuid}" + text[match.end(1) :])


def _drivers(guest: Guest, kernel: Kernel, files: GuestFiles) -> Check:
    data = files.read(kernel.initrd)
    if data is None:
        raise PostconditionFailed(f"{kernel.initrd} is gone", REMEDY)
    found = image.read(data, kernel.version)
    lacks = image.missing(found, kernel.modules)
    if lacks:
        raise PostconditionFailed(f"{kernel.initrd} lacks {', '.join(lacks)}", REMEDY)
    for path, content in _others(guest, found, files).items():
        if found.files[path].content != content:
            raise PostconditionFailed(f"{path} in {kernel.initrd} is not as it should be", REMEDY)
    present = found.modules()
    shown = []
    for path in image.needed_modules(kernel.modules):
        there = present[module_name(path)]
        own = files.read(f"{kernel.folder}/{path}")
        if own is None or unpacked(there, found.files[there].content) != unpacked(path, own):
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
