"""Agents of the former platform are not started on the new one; on the former one they would be, as before.

systemd: a drop-in with a condition on the platform, which works for units of packages, of users and of SysV scripts
alike; taking the file away takes it back. Without systemd: an upstart override, and K links in place of S links, as
`update-rc.d NAME disable` and `chkconfig NAME off` make them. Nothing is uninstalled. Modules, udev rules, X and
time settings for the former platform do no harm elsewhere and stay.

Of the clouds' agents, those of Azure and Google go as well: they wait for their metadata service at boot, and manage
accounts and host keys by it. Amazon's SSM agent stays: it does not hold a boot up, and serves machines outside AWS
too. cloud-init is not an agent of a platform. Nutanix' and Google's platforms say the same as the new one (KVM), so
that their agents have to be enabled by hand if the machine is to go back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from wavelift.guest.draft import Draft
from wavelift.guest.errors import PostconditionFailed
from wavelift.guest.evidence import REMEDY, Check
from wavelift.guest.facts import Guest
from wavelift.guest.files import GuestFiles
from wavelift.manifest.wishes import Wishes

_UNITS = ("/etc/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system")
_SYSTEMD = ("/lib/systemd", "/usr/lib/systemd")
_RC = ("/etc/rc{}.d", "/etc/rc.d/rc{}.d", "/etc/init.d/rc{}.d")
_START = re.compile(r"^S(\d\d)(.+)$")
# Local machines of QEMU's emulator say qemu, those of the cloud kvm.
_NOT_THE_TARGET = ("!kvm", "!qemu")


@dataclass(frozen=True)
class Platform:
    """`only_on`: what systemd calls it, or what it is not."""

    name: str
    only_on: tuple[str, ...]
    services: tuple[str, ...]


PLATFORMS = (
    Platform(
        "VMware",
        ("vmware",),
        ("open-vm-tools", "vmtoolsd", "vgauthd", "vmware-tools", "vmware-tools-services", "vmware-tools-thinprint"),
    ),
    Platform(
        "Hyper-V",
        ("microsoft",),
        (
            *("hv-kvp-daemon", "hv-vss-daemon", "hv-fcopy-daemon", "hyperv-daemons.hv-kvp-daemon"),
            *("hyperv-daemons.hv-vss-daemon", "hyperv-daemons.hv-fcopy-daemon", "hypervkvpd", "hypervvssd"),
            *("hypervfcopyd", "hv_kvp_daemon", "hv_vss_daemon", "hv_fcopy_daemon"),
        ),
    ),
    Platform(
        "Xen", ("xen",), ("xe-daemon", "xe-linux-distribution", "xe-guest-utilities", "xenstored", "xen-guest-agent")
    ),
    Platform(
        "VirtualBox",
        ("oracle",),
        ("vboxadd", "vboxadd-service", "vboxadd-x11", "virtualbox-guest-utils", "vboxservice"),
    ),
    Platform("Parallels", ("parallels",), ("prltoolsd", "prltools_updater", "prl-x11", "prl_tools")),
    Platform("Nutanix", _NOT_THE_TARGET, ("ngt_guest_agent", "ngt_self_service_restore")),
    Platform("Azure", ("microsoft",), ("walinuxagent", "waagent", "walinuxagent-network-setup")),
    Platform(
        "Google",
        _NOT_THE_TARGET,
        (
            *("google-guest-agent", "google-guest-agent-manager", "google-startup-scripts", "google-shutdown-scripts"),
            *("google-instance-setup", "google-network-daemon", "google-accounts-daemon", "google-osconfig-agent"),
            *("google-clock-skew-daemon",),
        ),
    ),
)


def plan(guest: Guest, wishes: Wishes, draft: Draft) -> None:
    for platform, service in _present(draft):
        reason = f"an agent of {platform.name}, which is not started elsewhere"
        if _has_systemd(draft):
            draft.write(drop_in(service), condition(platform), reason)
            continue
        override = _override(draft, service)
        if override and not _is_manual(draft, override):
            former = draft.text(override) or ""
            draft.write(override, former + ("" if former.endswith("\n") or not former else "\n") + "manual\n", reason)
        for folder, name, number in _started(draft, service):
            target = draft.link(f"{folder}/{name}") or f"../init.d/{service}"
            draft.remove(f"{folder}/{name}", reason)
            draft.make_link(f"{folder}/K{99 - number:02}{service}", target, reason)


def check(guest: Guest, wishes: Wishes, files: GuestFiles) -> list[Check]:
    present = list(_present(files))
    for platform, service in present:
        if _has_systemd(files):
            lines = (files.read(drop_in(service)) or b"").decode("utf-8", "replace").splitlines()
            off = all(f"ConditionVirtualization={where}" in lines for where in platform.only_on)
        else:
            override = _override(files, service)
            off = not any(_started(files, service)) and (override is None or _is_manual(files, override))
        if not off:
            raise PostconditionFailed(f"{service}, an agent of {platform.name}, would still be started", REMEDY)
    shown = ", ".join(f"{service} ({platform.name})" for platform, service in present)
    return [Check("agents of the former platform", f"not started: {shown}")] if present else []


def drop_in(service: str) -> str:
    return f"/etc/systemd/system/{service}.service.d/wavelift.conf"


def condition(platform: Platform) -> str:
    lines = "".join(f"ConditionVirtualization={where}\n" for where in platform.only_on)
    return f"# Made by Wavelift when the machine was moved; to take it back, delete this file.\n[Unit]\n{lines}"


def _present(files: GuestFiles) -> Iterator[tuple[Platform, str]]:
    """Those that have a unit, an init script or an upstart job."""
    there = {name for folder in (*_UNITS, "/etc/init.d") for name in files.names(folder)} | {
        name for name in files.names("/etc/init") if name.endswith(".conf")
    }
    for platform in PLATFORMS:
        for service in platform.services:
            if not there.isdisjoint((service, f"{service}.service", f"{service}.conf")):
                yield platform, service


def _has_systemd(files: GuestFiles) -> bool:
    return any("systemd" in files.names(folder) for folder in _SYSTEMD)


def _override(files: GuestFiles, service: str) -> str | None:
    return f"/etc/init/{service}.override" if f"{service}.conf" in files.names("/etc/init") else None


def _is_manual(files: GuestFiles, override: str) -> bool:
    return b"manual" in (files.read(override) or b"").split()


def _started(files: GuestFiles, service: str) -> Iterator[tuple[str, str, int]]:
    """Folder, name and number of each S link. One folder may be a link to another: the first name of it counts."""
    for level in range(7):
        for pattern in _RC:
            folder = pattern.format(level)
            names = files.names(folder)
            for name in names:
                found = _START.match(name)
                if found and found[2] == service:
                    yield folder, name, int(found[1])
            if names:
                break
