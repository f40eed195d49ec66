"""LVM in an initramfs: a list of devices that was copied into it knows the disks of the source only.

A file cannot be taken out of an initramfs by adding to it. lvmlocal.conf stands over lvm.conf, and says that the list
is not used. See lvmdevices(8), lvm.conf(5).
"""

from __future__ import annotations

from wavelift.guest.initramfs.image import Initramfs

_LIST = "etc/lvm/devices/system.devices"
_LOCAL = "etc/lvm/lvmlocal.conf"
_UNUSED = b"# All disks of the target, by Wavelift.\ndevices {\n\tuse_devicesfile = 0\n}\n"


def without_list(initramfs: Initramfs) -> dict[str, bytes]:
    """The files, by path, that it needs for that."""
    if _LIST not in initramfs.files:
        return {}
    entry = initramfs.files.get(_LOCAL)
    former = entry.content if entry else b""
    return {_LOCAL: former if former.endswith(_UNUSED) else former + _UNUSED}
