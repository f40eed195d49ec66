"""Post-conditions: read again from the disk; what does not hold is an error, never a warning."""

from dataclasses import dataclass

from wavelift.guest import initramfs
from wavelift.guest.bootconfig import kernel_arguments, mount_points
from wavelift.guest.drivers import module_name
from wavelift.guest.errors import PostconditionFailed
from wavelift.guest.files import GuestFiles
from wavelift.guest.plan import Guest, Kernel, Plan

_REMEDY = "this volume will not boot as it is; make a new clone and try again, and report it if it happens again"


@dataclass(frozen=True)
class Check:
    """Something that was shown, and by what."""

    name: str
    evidence: str


def written(plan: Plan, files: GuestFiles) -> list[Check]:
    """Each changed file holds what was planned."""
    for edit in plan.edits:
        if files.read(edit.path) != edit.after:
            raise PostconditionFailed(f"{edit.path} does not hold what was written to it", _REMEDY)
    return [Check("files read back", f"{len(plan.edits)} of {len(plan.edits)} as written")]


def prepared(guest: Guest, again: Plan, files: GuestFiles) -> list[Check]:
    """The guest on the disk boots on virtio as far as its files can show; `again` is a plan made from it afresh."""
    if again.edits:
        raise PostconditionFailed(f"still to change: {', '.join(edit.path for edit in again.edits)}", _REMEDY)
    checks = [_drivers(kernel, files) for kernel in guest.kernels]
    checks.append(_root_argument(guest, files))
    checks.append(_fstab(guest, files))
    return checks


def _drivers(kernel: Kernel, files: GuestFiles) -> Check:
    data = files.read(kernel.initrd)
    if data is None:
        raise PostconditionFailed(f"{kernel.initrd} is gone", _REMEDY)
    image = initramfs.read(data, kernel.version)
    lacks = initramfs.missing(image, kernel.modules)
    if lacks:
        raise PostconditionFailed(f"{kernel.initrd} lacks {', '.join(lacks)}", _REMEDY)
    present = image.modules()
    found = []
    for path in initramfs.needed_modules(kernel.modules):
        content = image.files[present[module_name(path)]].content
        if content != files.read(f"{kernel.folder}/{path}"):
            raise PostconditionFailed(f"{path} in {kernel.initrd} is not the kernel package's own", _REMEDY)
        found.append(module_name(path))
    evidence = f"{', '.join(found)} in {kernel.initrd}" if found else "built into the kernel"
    return Check(f"drivers of kernel {kernel.version}", evidence)


def _root_argument(guest: Guest, files: GuestFiles) -> Check:
    menu = (files.read(guest.menu) or b"").decode("utf-8", "surrogateescape")
    roots = kernel_arguments(menu, "root")
    wrong = [value for value in roots if value != f"UUID={guest.root_uuid}" and not value.startswith("$")]
    if not roots or wrong:
        raise PostconditionFailed(f"{guest.menu}: root= is {', '.join(wrong) or 'missing'}", _REMEDY)
    return Check("root by UUID", f"{len(roots)} entries of {guest.menu}: root=UUID={guest.root_uuid}")


def _fstab(guest: Guest, files: GuestFiles) -> Check:
    points = mount_points((files.read("/etc/fstab") or b"").decode("utf-8", "surrogateescape"))
    wrong = [f"{point} ({device})" for point, device in points.items() if guest.devices.uuid(device)]
    if wrong:
        raise PostconditionFailed(f"fstab still names by device: {', '.join(wrong)}", _REMEDY)
    shown = ", ".join(f"{point} {device}" for point, device in points.items() if device.startswith("UUID="))
    return Check("fstab by UUID", shown or "no file system of the given disks")
