"""From what a guest is to what has to change in it, concern by concern. Pure: reads through `GuestFiles`, writes
nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wavelift.guest import firstboot
from wavelift.guest.boot import crypttab, efi, fstab, loaders
from wavelift.guest.cleanup import agents, devices
from wavelift.guest.cleanup.selinux import AUTORELABEL, new_labels
from wavelift.guest.concern import Concern
from wavelift.guest.draft import Draft
from wavelift.guest.errors import PostconditionFailed, UnsupportedGuest
from wavelift.guest.evidence import REMEDY, Check
from wavelift.guest.facts import Guest
from wavelift.guest.files import FileEdit, GuestFiles, Link
from wavelift.guest.initramfs import virtio
from wavelift.guest.journal import folder_on, journalled
from wavelift.guest.network import cards
from wavelift.guest.windows import concerns as windows
from wavelift.guest.windows.files import real
from wavelift.guest.windows.inspection import WindowsGuest
from wavelift.manifest.wishes import Wishes

# Names of cards come before the drivers, which take them into the initramfs.
CONCERNS: tuple[Concern[Guest], ...] = (cards, virtio, fstab, crypttab, loaders, efi, devices, agents, firstboot)


@dataclass(frozen=True)
class Plan:
    """The edits in the order in which they are made, the journal of them first; and SELinux's labels of new files."""

    edits: tuple[FileEdit, ...]
    warnings: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


def make_plan(guest: Guest | WindowsGuest, wishes: Wishes, files: GuestFiles) -> Plan:
    """Everything that has to change for the guest to boot on virtio; nothing when it is prepared already."""
    draft = Draft(files)
    if isinstance(guest, WindowsGuest):
        for each in windows.CONCERNS:
            each.plan(guest, wishes, draft)
        folder = real(files, folder_on(guest.layout.root.kind))
        return Plan(tuple(journalled(draft.edits(), files, folder)), (*guest.warnings, *draft.warnings))
    return _linux_plan(guest, wishes, files, draft)


def _linux_plan(guest: Guest, wishes: Wishes, files: GuestFiles, draft: Draft) -> Plan:
    if not guest.kernels:
        raise UnsupportedGuest(
            "no kernel with an initramfs (/boot/vmlinuz-*, an initramfs of the same version, /lib/modules/*)",
            "install a kernel of the distribution on the source and replicate again",
        )
    for concern in CONCERNS:
        concern.plan(guest, wishes, draft)
    edits = journalled(draft.edits(), files)
    labels = new_labels(edits, files) or {}
    if None in labels.values():
        draft.write(AUTORELABEL, b"", "labels that could not be told: SELinux relabels at the next boot")
        draft.warn("SELinux: some labels could not be told; the first boot relabels the guest and restarts it")
        edits = journalled(draft.edits(), files)
        labels = new_labels(edits, files) or {}
    known = {path: label for path, label in labels.items() if label is not None}
    return Plan(tuple(edits), (*guest.warnings, *draft.warnings), known)


def check_written(plan: Plan, files: GuestFiles) -> list[Check]:
    """Each changed file holds what was planned."""
    for edit in plan.edits:
        target = files.link(edit.path)
        there = Link(target) if isinstance(edit.after, Link) and target is not None else files.read(edit.path)
        if there != edit.after:
            raise PostconditionFailed(f"{edit.path} does not hold what was written to it", REMEDY)
    return [Check("files read back", f"{len(plan.edits)} of {len(plan.edits)} as written")]


def check_prepared(guest: Guest | WindowsGuest, wishes: Wishes, files: GuestFiles) -> list[Check]:
    """The guest on the disk boots on virtio as far as its files can show."""
    again = make_plan(guest, wishes, files)
    if again.edits:
        raise PostconditionFailed(f"still to change: {', '.join(edit.path for edit in again.edits)}", REMEDY)
    if isinstance(guest, WindowsGuest):
        return [check for each in windows.CONCERNS for check in each.check(guest, wishes, files)]
    return [check for concern in CONCERNS for check in concern.check(guest, wishes, files)]
