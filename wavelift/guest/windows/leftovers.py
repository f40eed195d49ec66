"""Services and filters of the former hypervisor, put off; what they were is kept in SYSTEM under Wavelift\\Disabled.

Those of Hyper-V belong to Windows itself and end by themselves where there is no Hyper-V; they are left alone."""

from __future__ import annotations

from wavelift.guest.draft import Draft
from wavelift.guest.errors import PostconditionFailed
from wavelift.guest.evidence import REMEDY, Check
from wavelift.guest.files import GuestFiles
from wavelift.guest.windows.files import CONFIG, open_hive
from wavelift.guest.windows.hive import Hive, dword, multi_sz
from wavelift.guest.windows.inspection import WindowsGuest
from wavelift.manifest.wishes import Wishes

_DISABLED = 4
_KEPT = "Wavelift\\Disabled"
_VMWARE = ("VMTools", "VGAuthService", "vmvss", "VMware Physical Disk Helper Service", "VMMemCtl")
_XEN = ("xenagent", "xenbus", "xendisk", "xenfilt", "xeniface", "xensvc", "xenvbd", "xenvif", "xennet", "rhelscsi")
_PARALLELS = ("prl_boot", "prl_dd", "prl_fs", "prl_memdev", "prl_scsi", "prl_strg", "prl_tg", "prl_time")
_SERVICES = (*_VMWARE, *_XEN, *_PARALLELS, "VBoxService")
_FILTERS = ("xenfilt", "xendisk", "scsifilt", "prl_strg")


def plan(guest: WindowsGuest, wishes: Wishes, draft: Draft) -> None:
    path, hive = open_hive(draft, f"{CONFIG}/SYSTEM")
    for service in _running(hive, guest):
        key = f"{guest.system.control_set}\\Services\\{service}"
        former = hive.number(key, "Start")
        hive.set(f"{_KEPT}\\Services\\{service}", "Start", dword(former or 0))
        hive.set(key, "Start", dword(_DISABLED))
    # A class whose filter does not start has no devices: they go together.
    for key, name, filters in _filtered(hive, guest):
        hive.set(f"{_KEPT}\\{key}", name, multi_sz(*filters))
        hive.set(key, name, multi_sz(*(each for each in filters if each.lower() not in _FILTERS)))
    draft.write(path, hive.content(), "the former hypervisor's services are off")


def check(guest: WindowsGuest, wishes: Wishes, files: GuestFiles) -> list[Check]:
    _, hive = open_hive(files, f"{CONFIG}/SYSTEM")
    left = [*_running(hive, guest), *(key for key, _, _ in _filtered(hive, guest))]
    if left:
        raise PostconditionFailed(f"SYSTEM: of the former hypervisor is left: {', '.join(left)}", REMEDY)
    off = hive.keys(f"{_KEPT}\\Services")
    return [Check("former hypervisor's services off", ", ".join(off))] if off else []


def _running(hive: Hive, guest: WindowsGuest) -> list[str]:
    services = f"{guest.system.control_set}\\Services"
    return [each for each in _SERVICES if hive.number(f"{services}\\{each}", "Start") not in (None, _DISABLED)]


def _filtered(hive: Hive, guest: WindowsGuest) -> list[tuple[str, str, list[str]]]:
    found = []
    classes = f"{guest.system.control_set}\\Control\\Class"
    for each in hive.keys(classes):
        for name in ("UpperFilters", "LowerFilters"):
            value = hive.get(f"{classes}\\{each}", name)
            if value is not None and any(filter_.lower() in _FILTERS for filter_ in value.texts):
                found.append((f"{classes}\\{each}", name, value.texts))
    return found
