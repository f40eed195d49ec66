"""Cards of every stack keep names and addresses, without the MACs of the source; or get what is wished for."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.guest.conftest import applied
from wavelift.guest.draft import Draft
from wavelift.guest.errors import PostconditionFailed, UnsupportedGuest
from wavelift.guest.facts import Devices, FileSystem, Guest, Layout, System
from wavelift.guest.files import DirectoryFiles
from wavelift.guest.network import cards, names
from wavelift.guest.network.sections import extended, values, without
from wavelift.manifest.wishes import Wishes

FS = FileSystem("/dev/sda1", "ext4", "u", (0, 1))
GUEST = Guest(System("x", (), "", "x"), (), Layout(FS, {"/": FS}, Devices({})))
NOTHING = Wishes()
STATIC = Wishes.model_validate(
    {
        "network": {
            "interfaces": [
                {
                    "method": "static",
                    "addresses": ["172.16.0.5/24", "2001:db8::5/64"],
                    "gateway": "172.16.0.1",
                    "dns": ["172.16.0.2"],
                    "search": ["example.org"],
                }
            ]
        }
    }
)
DHCP = Wishes.model_validate({"network": {"interfaces": [{"name": "ens34", "method": "dhcp"}]}})

INTERFACES = """\
# by the installer
source /etc/network/interfaces.d/*

auto lo
iface lo inet loopback

allow-hotplug ens33
iface ens33 inet static
    address 10.0.0.5
    netmask 255.255.255.0
    gateway 10.0.0.1
    hwaddress ether 00:50:56:aa:bb:cc
"""
BRIDGE = "auto br0\niface br0 inet static\n    address 10.1.0.1/24\n    bridge_ports ens35\n"
SECOND = "auto ens34\niface ens34 inet static\n    address 192.168.7.5/24\n    mtu 9000\n"
NETPLAN = """\
# by subiquity
network:
  version: 2
  ethernets:
    ens33:
      match: {macaddress: "00:50:56:aa:bb:cc"}
      set-name: ens33
      addresses: [10.0.0.5/24]
      nameservers: {addresses: [10.0.0.2]}
      routes: [{to: default, via: 10.0.0.1}]
    id0:
      match: {macaddress: "00:50:56:aa:bb:dd"}
      set-name: ens34
      addresses: [192.168.7.5/24]
  bridges:
    br0: {interfaces: [id0]}
"""
KEYFILE = """\
# kept
[connection]
id=Wired 1
type=ethernet
interface-name=%s

[ethernet]
mac-address=00:50:56:AA:BB:CC
mtu=9000

[ipv4]
address1=%s
method=manual
route1=10.9.0.0/16,10.0.0.254

[ipv6]
method=auto
"""
NETWORKD = "[Match]\nMACAddress=00:50:56:aa:bb:cc\nName=%s\n\n[Network]\nAddress=%s\n\n[Route]\nGateway=10.0.0.9\n"
RED_HAT = "TYPE=Ethernet\nBOOTPROTO=none\nDEVICE=%s\nHWADDR=00:50:56:AA:BB:CC\nIPADDR=%s\nPREFIX=24\nONBOOT=yes\n"
SUSE = "BOOTPROTO='static'\nIPADDR='%s/24'\nLLADDR='00:50:56:aa:bb:cc'\nSTARTMODE='auto'\n"
KEYFILES = "etc/NetworkManager/system-connections"
PAIRS = (("ens33", "10.0.0.5"), ("ens34", "192.168.7.5"))
# By name: the files of a guest with two cards, static.
GUESTS: dict[str, dict[str, str]] = {
    "Debian 11-13, ifupdown": {
        "etc/network/interfaces": INTERFACES,
        "etc/network/interfaces.d/second": SECOND,
        "etc/network/interfaces.d/bridge": BRIDGE,
    },
    "Ubuntu 18-24, netplan": {"etc/netplan/50-cloud-init.yaml": NETPLAN, "etc/cloud/cloud.cfg": "x: 1\n"},
    "RHEL 9, Alma 9, keyfiles": {f"{KEYFILES}/{n}.nmconnection": KEYFILE % (n, f"{a}/24,{a}1") for n, a in PAIRS},
    "Debian, networkd": {f"etc/systemd/network/20-{n}.network": NETWORKD % (n, f"{a}/24") for n, a in PAIRS},
    "RHEL 7-8, Anolis, Alibaba Cloud Linux, ifcfg": {
        **{f"etc/sysconfig/network-scripts/ifcfg-{n}": RED_HAT % (n, a) for n, a in PAIRS},
        "etc/sysconfig/network-scripts/ifcfg-lo": "DEVICE=lo\n",
        "etc/sysconfig/network-scripts/ifcfg-ens33.bak": "DEVICE=ens99\n",
        "etc/udev/rules.d/70-persistent-net.rules": (
            '# made\nSUBSYSTEM=="net", ACTION=="add", ATTR{address}=="00:50:56:aa:bb:cc", NAME="ens33"\n'
        ),
    },
    "SLES 12-15, wicked": {f"etc/sysconfig/network/ifcfg-{n}": SUSE % a for n, a in PAIRS},
}


def tree(root: Path, files: dict[str, str]) -> DirectoryFiles:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return DirectoryFiles(root)


def prepared(root: Path, wishes: Wishes = NOTHING) -> tuple[str, list[str]]:
    """What the check shows, and the warnings."""
    files = DirectoryFiles(root)
    draft = Draft(files)
    cards.plan(GUEST, wishes, draft)
    applied(root, draft.edits())
    again = Draft(DirectoryFiles(root))
    cards.plan(GUEST, wishes, again)
    assert again.edits() == []
    return "; ".join(check.evidence for check in cards.check(GUEST, wishes, files)), draft.warnings


@pytest.mark.parametrize("name", GUESTS)
def test_names_and_addresses_are_kept_and_macs_are_not(tmp_path: Path, name: str) -> None:
    files = tree(tmp_path, GUESTS[name])
    if "70-persistent" not in str(GUESTS[name]):
        with pytest.raises(PostconditionFailed, match="bound to the source"):
            cards.check(GUEST, NOTHING, files)
    shown, warnings = prepared(tmp_path)
    assert shown.startswith("ens33 10.0.0.5/") and "ens34 192.168.7.5/24" in shown and "br0" not in shown
    assert warnings == []
    everything = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    active = [line for text in everything for line in text.splitlines() if "Off since the move" not in line]
    assert not any("00:50:56" in line.lower() for line in active)
    for number, card in enumerate(("ens33", "ens34")):
        assert (tmp_path / f"etc/systemd/network/10-wavelift-{card}.link").read_text() == names.link(number, card)
    assert (tmp_path / "etc/udev/rules.d/70-wavelift-net.rules").read_text() == names.rules(["ens33", "ens34"])
    assert (tmp_path / "etc/cloud/cloud.cfg.d/99-wavelift.cfg").exists() == ("netplan" in name)


def test_all_else_stays_as_it_was(tmp_path: Path) -> None:
    tree(tmp_path, {key: text for files in GUESTS.values() for key, text in files.items()})
    prepared(tmp_path)
    text = (tmp_path / "etc/network/interfaces").read_text()
    assert text == INTERFACES.replace("    hwaddress", "    # Off since the move, by Wavelift: hwaddress")
    assert (tmp_path / "etc/network/interfaces.d/second").read_text() == SECOND
    text = (tmp_path / f"{KEYFILES}/ens33.nmconnection").read_text()
    assert text == (KEYFILE % ("ens33", "10.0.0.5/24,10.0.0.51")).replace("mac-address=00:50:56:AA:BB:CC\n", "")
    text = (tmp_path / "etc/systemd/network/20-ens33.network").read_text()
    assert text == (NETWORKD % ("ens33", "10.0.0.5/24")).replace("MACAddress=00:50:56:aa:bb:cc\n", "")
    text = (tmp_path / "etc/sysconfig/network-scripts/ifcfg-ens33").read_text()
    assert text == (RED_HAT % ("ens33", "10.0.0.5")).replace("HWADDR=00:50:56:AA:BB:CC\n", "")
    text = (tmp_path / "etc/sysconfig/network/ifcfg-ens33").read_text()
    assert text == (SUSE % "10.0.0.5").replace("LLADDR='00:50:56:aa:bb:cc'\n", "")


@pytest.mark.parametrize("name", GUESTS)
def test_other_addresses_as_wished_for(tmp_path: Path, name: str) -> None:
    tree(tmp_path, GUESTS[name])
    shown, _ = prepared(tmp_path, STATIC)
    assert shown.startswith("ens33 172.16.0.5/24, 2001:db8::5/64 ") and "ens34 192.168.7.5/24" in shown
    everything = "\n".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "172.16.0.1" in everything and "10.0.0.5" not in everything.replace("10.0.0.51", "")


@pytest.mark.parametrize("name", GUESTS)
def test_dhcp_as_wished_for(tmp_path: Path, name: str) -> None:
    tree(tmp_path, GUESTS[name])
    shown, _ = prepared(tmp_path, DHCP)
    assert "ens33 10.0.0.5" in shown and "ens34 by DHCP" in shown
    first = (tmp_path / "etc/systemd/network/10-wavelift-ens34.link").read_text()
    assert "OriginalName=eth0" in first, "the order of the wishes is that of the instance's cards"


@pytest.mark.parametrize("stack", ["etc/netplan/1.yaml", "etc/sysconfig/network-scripts/x", f"{KEYFILES}/x", "x"])
def test_a_card_that_the_guest_does_not_know_is_configured(tmp_path: Path, stack: str) -> None:
    tree(tmp_path, {stack: "{}"})
    wishes: dict[str, Any] = STATIC.model_dump(mode="json")
    with pytest.raises(UnsupportedGuest, match="no name"):
        prepared(tmp_path, STATIC)
    wishes["network"]["interfaces"][0]["name"] = "eth0"
    shown, _ = prepared(tmp_path, Wishes.model_validate(wishes))
    assert shown.startswith("eth0 172.16.0.5/24")


def test_a_pattern_takes_virtio_cards_as_well(tmp_path: Path) -> None:
    text = "[Match]\nName=en*\n\n[Network]\nDHCP=yes\n"
    tree(tmp_path, {"etc/systemd/network/all.network": text})
    shown, warnings = prepared(tmp_path)
    assert shown == "" and "no network card is configured by a name" in warnings[0]
    assert (tmp_path / "etc/systemd/network/all.network").read_text() == text


def test_a_mac_alone_becomes_any_card_and_is_said(tmp_path: Path) -> None:
    keyfile = (KEYFILE % ("x", "10.0.0.5/24")).replace("interface-name=x\n", "")
    tree(
        tmp_path, {f"{KEYFILES}/x": keyfile, "etc/systemd/network/x.network": "[Match]\nMACAddress=00:50:56:00:00:01\n"}
    )
    _, warnings = prepared(tmp_path)
    assert sum("with a MAC" in warning for warning in warnings) == 2
    assert "[Match]\nType=ether\n" in (tmp_path / "etc/systemd/network/x.network").read_text()


def test_the_hostname_is_another_one_where_it_is_wished_for(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "etc/hostname": "old\n",
            "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 old.example.org old\n10.0.0.9 old-db old\n",
            "etc/sysconfig/network": "NETWORKING=yes\nHOSTNAME=old\n",
        },
    )
    prepared(tmp_path, Wishes(hostname="new-1"))
    assert (tmp_path / "etc/hostname").read_text() == "new-1\n"
    assert "127.0.1.1 new-1.example.org new-1\n10.0.0.9 old-db old\n" in (tmp_path / "etc/hosts").read_text()
    assert (tmp_path / "etc/sysconfig/network").read_text() == "NETWORKING=yes\nHOSTNAME=new-1\n"


def test_broken_yaml_is_refused(tmp_path: Path) -> None:
    tree(tmp_path, {"etc/netplan/1.yaml": "network: [\n"})
    with pytest.raises(UnsupportedGuest, match="is no YAML"):
        prepared(tmp_path)


LINES = st.lists(
    st.sampled_from(["[Match]", "[Network]", "Name=a", "MACAddress=b", "# c", "", " Name = d "]), max_size=12
)


@given(LINES)
def test_keys_go_and_come_and_all_else_stays(lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    bare = without(text, "Match", ["MACAddress"])
    assert values(bare, "Match", "MACAddress") == [] and values(bare, "Match", "Name") == values(text, "Match", "Name")
    assert values(bare, "Network", "MACAddress") == values(text, "Network", "MACAddress")
    more = extended(bare, "Match", [("MACAddress", "x")])
    assert values(more, "Match", "MACAddress") == ["x"]
    assert [line for line in more.splitlines() if line] != [] and without(more, "Match", ["MACAddress"]).split() == (
        bare.split() if "[Match]" in lines else [*bare.split(), "[Match]"]
    )
