"""LVM's list of the devices that it may use, which names them by what the former platform's controller said.

With it, LVM finds none of its volumes on another controller. It is kept beside under another name; without it LVM
looks at all disks, and `vgimportdevices -a` makes a new one.

Everything else that is particular to a machine is left: machine-id, SSH host keys and licences because a moved machine
is the same machine (a rehearsal runs apart from its source); leases of DHCP, caches of blkid and LVM, names of CD
drives and crash kernels because they are asked for again or do no harm.
"""

from __future__ import annotations

from wavelift.guest.draft import Draft
from wavelift.guest.errors import PostconditionFailed
from wavelift.guest.evidence import REMEDY, Check
from wavelift.guest.facts import Guest
from wavelift.guest.files import GuestFiles
from wavelift.manifest.wishes import Wishes

LIST = "/etc/lvm/devices/system.devices"
KEPT = "/etc/lvm/devices/wavelift-system.devices"


def plan(guest: Guest, wishes: Wishes, draft: Draft) -> None:
    former = draft.read(LIST)
    if former is None:
        return
    draft.write(KEPT, former, "LVM's list of devices, as it was", 0o600)
    draft.remove(LIST, "LVM looks at all disks, whatever their controller calls them")


def check(guest: Guest, wishes: Wishes, files: GuestFiles) -> list[Check]:
    if "system.devices" in files.names("/etc/lvm/devices"):
        raise PostconditionFailed(f"{LIST} is still there, and LVM would use no other device", REMEDY)
    if files.read(KEPT) is None:
        return []
    return [Check("LVM uses all disks", f"{LIST} is out of the way, as {KEPT}")]
