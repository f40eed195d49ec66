"""Agents are kept from starting by means that can be taken back, with each init system."""

from pathlib import Path

import pytest

from tests.guest.conftest import applied
from wavelift.guest.cleanup import agents, devices
from wavelift.guest.draft import Draft
from wavelift.guest.errors import PostconditionFailed
from wavelift.guest.facts import Devices, FileSystem, Guest, Layout, System
from wavelift.guest.files import DirectoryFiles
from wavelift.guest.plan import Concern
from wavelift.manifest.wishes import Wishes

ROOT = FileSystem("/dev/sda1", "ext4", "11111111-aaaa", (0, 1))
GUEST = Guest(System("debian", (), "12", "Debian"), (), Layout(ROOT, {"/": ROOT}, Devices({})))
NOTHING = Wishes()


def put(tree: Path, path: str, content: str = "") -> None:
    target = tree / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(content)


def changed(tree: Path, concern: Concern = agents) -> list[str]:
    """Plan and apply; a second time there is nothing to plan."""
    paths = []
    for _ in range(2):
        draft = Draft(DirectoryFiles(tree))
        concern.plan(GUEST, NOTHING, draft)
        paths.append([edit.path for edit in draft.edits()])
        applied(tree, draft.edits())
    assert paths[1] == []
    return paths[0]


def evidence(tree: Path, concern: Concern = agents) -> list[str]:
    return [check.evidence for check in concern.check(GUEST, NOTHING, DirectoryFiles(tree))]


def test_a_guest_without_agents(tmp_path: Path) -> None:
    put(tmp_path, "/lib/systemd/systemd")
    put(tmp_path, "/lib/systemd/system/ssh.service")
    assert changed(tmp_path) == [] and evidence(tmp_path) == []


@pytest.mark.parametrize("unit", ["/lib/systemd/system", "/usr/lib/systemd/system", "/etc/systemd/system"])
def test_a_unit_gets_a_condition(tmp_path: Path, unit: str) -> None:
    put(tmp_path, "/usr/lib/systemd/systemd")
    put(tmp_path, f"{unit}/open-vm-tools.service", "[Service]\nExecStart=/usr/bin/vmtoolsd\n")
    with pytest.raises(PostconditionFailed, match="open-vm-tools, an agent of VMware"):
        evidence(tmp_path)
    assert changed(tmp_path) == ["/etc/systemd/system/open-vm-tools.service.d/wavelift.conf"]
    assert evidence(tmp_path) == ["not started: open-vm-tools (VMware)"]
    text = (tmp_path / "etc/systemd/system/open-vm-tools.service.d/wavelift.conf").read_text()
    assert text.endswith("[Unit]\nConditionVirtualization=vmware\n")
    (tmp_path / unit[1:] / "open-vm-tools.service").unlink()
    assert evidence(tmp_path) == []


def test_an_init_script_under_systemd_gets_one_as_well(tmp_path: Path) -> None:
    put(tmp_path, "/lib/systemd/systemd")
    put(tmp_path, "/etc/init.d/xe-linux-distribution", "#!/bin/sh\n")
    put(tmp_path, "/lib/systemd/system/google-guest-agent.service")
    assert len(changed(tmp_path)) == 2
    text = (tmp_path / "etc/systemd/system/google-guest-agent.service.d/wavelift.conf").read_text()
    assert "ConditionVirtualization=!kvm\nConditionVirtualization=!qemu\n" in text


@pytest.mark.parametrize("folder", ["etc/rc{}.d", "etc/rc.d/rc{}.d", "etc/init.d/rc{}.d"])
def test_sysv_links_become_those_that_stop(tmp_path: Path, folder: str) -> None:
    put(tmp_path, "/etc/init.d/vboxadd-service", "#!/bin/sh\n")
    for level in (2, 3):
        at = tmp_path / folder.format(level)
        at.mkdir(parents=True)
        (at / "S20vboxadd-service").symlink_to("../init.d/vboxadd-service")
        (at / "S20ssh").symlink_to("../init.d/ssh")
    with pytest.raises(PostconditionFailed, match="vboxadd-service"):
        evidence(tmp_path)
    assert len(changed(tmp_path)) == 4
    at = tmp_path / folder.format(3)
    assert sorted(path.name for path in at.iterdir()) == ["K79vboxadd-service", "S20ssh"]
    assert (at / "K79vboxadd-service").readlink() == Path("../init.d/vboxadd-service")
    assert evidence(tmp_path)


@pytest.mark.parametrize("former", ["", "# of the admin\nlimit core 0 0"])
def test_upstart_jobs_become_manual(tmp_path: Path, former: str) -> None:
    put(tmp_path, "/etc/init/open-vm-tools.conf", "start on runlevel [2345]\n")
    if former:
        put(tmp_path, "/etc/init/open-vm-tools.override", former)
    assert changed(tmp_path) == ["/etc/init/open-vm-tools.override"]
    text = (tmp_path / "etc/init/open-vm-tools.override").read_text()
    assert text == (f"{former}\nmanual\n" if former else "manual\n")
    assert evidence(tmp_path)


def test_no_agent_is_named_twice() -> None:
    names = [service for platform in agents.PLATFORMS for service in platform.services]
    assert len(names) == len(set(names))


def test_lvm_may_use_all_devices_again(tmp_path: Path) -> None:
    assert changed(tmp_path, devices) == [] and evidence(tmp_path, devices) == []
    put(tmp_path, devices.LIST, "IDTYPE=sys_wwid IDNAME=naa.6000c29 DEVNAME=/dev/sda2 PVID=abc\n")
    with pytest.raises(PostconditionFailed, match=r"system\.devices"):
        evidence(tmp_path, devices)
    assert changed(tmp_path, devices) == [devices.KEPT, devices.LIST]
    assert "PVID=abc" in (tmp_path / devices.KEPT[1:]).read_text()
    assert evidence(tmp_path, devices)
