"""Windows by version: what is planned, that it is there afterwards, that it is planned once, and taken back."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.guest.conftest import applied
from tests.guest.windows.hives import Tree, values_of, write
from tests.guest.windows.trees import (
    CLASS,
    LAYOUT,
    LOADER,
    RELEASES,
    Release,
    content_of,
    guest_of,
    inspected,
    make_virtio_win,
    make_windows,
    put,
)
from wavelift.guest.draft import Draft
from wavelift.guest.errors import GuestError, MissingDriver, PostconditionFailed, UnsupportedGuest
from wavelift.guest.files import DirectoryFiles, FileEdit
from wavelift.guest.journal import journalled, undone
from wavelift.guest.windows.concerns import CONCERNS
from wavelift.guest.windows.hive import Hive, Kind, Value, binary, dword, expand_sz, multi_sz, sz
from wavelift.guest.windows.inspection import WindowsGuest, describe
from wavelift.manifest.wishes import Wishes

SYSTEM = "Windows/System32/config/SYSTEM"
SOFTWARE = "Windows/System32/config/SOFTWARE"
SERVER = next(each for each in RELEASES if each.folder == "2k22")
NOTHING = Wishes()


def planned(guest: WindowsGuest, root: Path, wishes: Wishes = NOTHING) -> tuple[list[FileEdit], list[str]]:
    draft = Draft(DirectoryFiles(root))
    for concern in CONCERNS:
        concern.plan(guest, wishes, draft)
    return draft.edits(), draft.warnings


def prepared(tmp_path: Path, release: Release, wishes: Wishes = NOTHING) -> tuple[WindowsGuest, Path]:
    root = make_windows(tmp_path / "guest", release)
    architecture = "x86" if release.processor == "x86" else "amd64"
    guest = guest_of(root, make_virtio_win(tmp_path / "virtio-win", release.folder, architecture))
    applied(root, planned(guest, root, wishes)[0])
    return guest, root


def expected(release: Release, driver: str, bus: int, legacy: str, modern: str) -> dict[tuple[str, str], Value]:
    service = f"ControlSet002\\Services\\{driver}"
    found = {
        (service, "Type"): dword(1),
        (service, "Start"): dword(0),
        (service, "ErrorControl"): dword(1),
        (service, "Group"): sz("SCSI miniport"),
        (service, "ImagePath"): expand_sz(f"system32\\drivers\\{driver}.sys"),
        (f"{service}\\Parameters", "BusType"): dword(bus),
        (f"{service}\\Parameters\\PnpInterface", "5"): dword(1),
    }
    devices = [legacy, f"{legacy}&REV_00", modern, f"{modern}&REV_01"]
    if release.version == "6.1":
        for device in devices:
            key = f"ControlSet002\\Control\\CriticalDeviceDatabase\\PCI#VEN_1AF4&DEV_{device}"
            found[key, "Service"] = sz(driver)
            found[key, "ClassGUID"] = sz("{4D36E97B-E325-11CE-BFC1-08002BE10318}")
        return found
    inf = f"wavelift-{driver}.inf"
    package = f"{inf}_{release.processor.lower()}_0000000000000000"
    packages = f"DriverDatabase\\DriverPackages\\{package}"
    version = bytes.fromhex("00ff0900000000007be9364d25e3ce11bfc108002be10318" + "00" * 24)
    found |= {
        (f"DriverDatabase\\DriverInfFiles\\{inf}", ""): multi_sz(package),
        (f"DriverDatabase\\DriverInfFiles\\{inf}", "Active"): sz(package),
        (f"DriverDatabase\\DriverInfFiles\\{inf}", "Configurations"): multi_sz("wavelift"),
        (packages, "Version"): binary(version),
        (f"{packages}\\Configurations\\wavelift", "ConfigFlags"): dword(0),
        (f"{packages}\\Configurations\\wavelift", "Service"): sz(driver),
    }
    for device in devices:
        found[f"DriverDatabase\\DeviceIds\\PCI\\VEN_1AF4&DEV_{device}", inf] = binary(bytes.fromhex("01ff0000"))
        found[f"{packages}\\Descriptors\\PCI\\VEN_1AF4&DEV_{device}", "Configuration"] = sz("wavelift")
    return found


@pytest.mark.parametrize("release", RELEASES, ids=lambda each: f"{each.folder}-{each.processor}")
def test_every_registry_value_that_changes(tmp_path: Path, release: Release) -> None:
    before = values_of((make_windows(tmp_path / "untouched", release) / SYSTEM).read_bytes())
    guest, root = prepared(tmp_path, release)
    after = values_of((root / SYSTEM).read_bytes())
    command = after.pop(("ControlSet002\\Services\\WaveliftFirstBoot", "ImagePath"))
    assert command.text.endswith("\\ProgramData\\Wavelift\\firstboot.cmd") and command.kind == Kind.EXPAND_SZ
    first_boot = "ControlSet002\\Services\\WaveliftFirstBoot"
    assert after == before | expected(release, "viostor", 1, "1001", "1042") | expected(
        release, "vioscsi", 10, "1004", "1048"
    ) | {
        ("ControlSet002\\Services\\partmgr\\Parameters", "SanPolicy"): dword(1),
        ("ControlSet002\\Services\\VMTools", "Start"): dword(4),
        ("ControlSet002\\Services\\xenfilt", "Start"): dword(4),
        ("Wavelift\\Disabled\\Services\\VMTools", "Start"): dword(2),
        ("Wavelift\\Disabled\\Services\\xenfilt", "Start"): dword(0),
        (f"ControlSet002\\Control\\Class\\{CLASS}", "UpperFilters"): multi_sz("partmgr"),
        (f"Wavelift\\Disabled\\ControlSet002\\Control\\Class\\{CLASS}", "UpperFilters"): multi_sz("partmgr", "XenFilt"),
        (first_boot, "Type"): dword(0x10),
        (first_boot, "Start"): dword(2),
        (first_boot, "ErrorControl"): dword(0),
        (first_boot, "DisplayName"): sz("Wavelift first boot"),
        (first_boot, "ObjectName"): sz("LocalSystem"),
    }
    assert guest.drivers.folder == release.folder
    image = (root / "Windows/System32/drivers/viostor.sys").read_bytes()
    assert image == guest.drivers.image("viostor")
    packages = {path.name for path in (root / "ProgramData/Wavelift/drivers").iterdir()}
    assert {"netkvm.inf", "netkvm.sys", "netkvm.cat", "viostor.inf", "balloon.sys"} < packages
    assert not {"vioprot.inf", "netkvm.pdb"} & packages
    software = Hive((root / SOFTWARE).read_bytes(), SOFTWARE)
    searched = software.text("Microsoft\\Windows\\CurrentVersion", "DevicePath")
    assert searched == "%SystemRoot%\\inf;%SystemDrive%\\ProgramData\\Wavelift\\drivers"
    policy = Hive((root / "Boot/BCD").read_bytes(), "BCD").get(f"Objects\\{LOADER}\\Elements\\250000e0", "Element")
    assert policy == binary(b"\1" + bytes(7))


@pytest.mark.parametrize("release", [RELEASES[0], SERVER], ids=lambda each: each.folder)
def test_checked_planned_once_and_taken_back(tmp_path: Path, release: Release) -> None:
    root = make_windows(tmp_path / "guest", release)
    before = content_of(root)
    guest = guest_of(root, make_virtio_win(tmp_path / "virtio-win", release.folder, "amd64", "drivers/by-driver/"))
    files = DirectoryFiles(root)
    for concern in CONCERNS[:1] + CONCERNS[1:]:
        with pytest.raises(PostconditionFailed):
            concern.check(guest, NOTHING, files)
    edits, _ = planned(guest, root)
    assert edits == planned(guest, root)[0], "the same bytes each time"
    applied(root, journalled(edits, files))
    assert planned(guest_of(root, tmp_path / "virtio-win"), root)[0] == []
    shown = [check.name for concern in CONCERNS for check in concern.check(guest, NOTHING, files)]
    assert shown == ["disk drivers at boot", "former hypervisor's services off", "no repair screen", "first boot"]
    applied(root, undone(files))
    assert content_of(root) == before


def test_names_know_no_case(tmp_path: Path) -> None:
    root = make_windows(tmp_path / "guest", SERVER)
    (root / "Windows").rename(root / "WINDOWS")
    (root / "WINDOWS/System32").rename(root / "WINDOWS/system32")
    guest = guest_of(root, make_virtio_win(tmp_path / "virtio-win", "2K22", "amd64"))
    applied(root, planned(guest, root)[0])
    assert (root / "WINDOWS/system32/drivers/viostor.sys").exists() and not (root / "Windows").exists()


def test_first_boot(tmp_path: Path) -> None:
    wishes = Wishes.model_validate(
        {
            "network": {
                "interfaces": [
                    {"method": "dhcp"},
                    {
                        "method": "static",
                        "addresses": ["10.0.0.5/24", "fd00::5/64"],
                        "gateway": "10.0.0.1",
                        "dns": ["10.0.0.2"],
                    },
                ]
            },
            "first_boot": [
                {"name": "announce", "script": "[bat]\necho moved\n"},
                {"name": "ask", "script": "[PowerShell]\nGet-Date\n"},
            ],
        }
    )
    _, root = prepared(tmp_path, SERVER, wishes)
    folder = root / "ProgramData/Wavelift"
    main = (folder / "firstboot.cmd").read_bytes()
    calls = [line for line in main.decode().split("\r\n") if line.startswith("call :once")]
    assert calls == ["call :once 00-network.ps1", "call :once 01-announce.cmd", "call :once 02-ask.ps1"]
    assert main.count(b"\n") == main.count(b"\r\n") and b"sc.exe delete WaveliftFirstBoot" in main
    assert (folder / "scripts/01-announce.cmd").read_bytes() == b"echo moved\r\n"
    assert (folder / "scripts/02-ask.ps1").read_bytes() == b"\xef\xbb\xbfGet-Date\r\n"
    network = (folder / "scripts/00-network.ps1").read_text("utf-8-sig")
    assert "$wanted = 2" in network and "$cards[0]" not in network
    assert network.split("$cards[1].InterfaceIndex\n")[1] == (
        "    netsh interface ipv4 set address name=$card source=static address=10.0.0.5 mask=255.255.255.0\n"
        "    netsh interface ipv6 add address interface=$card address=fd00::5/64\n"
        "    netsh interface ipv4 add route 0.0.0.0/0 interface=$card nexthop=10.0.0.1\n"
        "    netsh interface ipv4 set dnsservers name=$card source=static address=10.0.0.2 validate=no\n"
        "}\n"
    )


def test_a_script_for_linux_is_refused(tmp_path: Path) -> None:
    wishes = Wishes.model_validate({"first_boot": [{"name": "sh", "script": "#!/bin/sh\ntrue\n"}]})
    with pytest.raises(UnsupportedGuest, match="#!/bin/sh"):
        prepared(tmp_path, SERVER, wishes)


@pytest.mark.parametrize("signature", [b"hibr", b"HIBR", b"RSTR", b"wake"])
def test_hibernated(tmp_path: Path, signature: bytes) -> None:
    root = make_windows(tmp_path / "guest", SERVER)
    put(root, "hiberfil.sys", bytes(4096))
    assert inspected(root)
    put(root, "hiberfil.sys", signature + bytes(4092))
    with pytest.raises(UnsupportedGuest, match="hibernated"):
        inspected(root)


@pytest.mark.parametrize(
    ("release", "reason"),
    [
        (Release("Windows Vista", "6.0", 6002, "Client", ""), "not known"),
        (Release("Windows Server 2003", "5.2", 3790, "", ""), "not known"),
        (Release("Windows 11 Pro", "10.0", 26100, "Client", "", "ARM64"), "arm64"),
    ],
)
def test_what_is_not_handled(tmp_path: Path, release: Release, reason: str) -> None:
    with pytest.raises(UnsupportedGuest, match=reason):
        inspected(make_windows(tmp_path, release))


def test_drivers_are_missing_or_foreign(tmp_path: Path) -> None:
    system = inspected(make_windows(tmp_path / "guest", SERVER))
    with pytest.raises(MissingDriver, match="none were given") as caught:
        describe(system, LAYOUT, None)
    assert "--virtio-win" in caught.value.remedy
    older = make_virtio_win(tmp_path / "older", "2k19", "amd64")
    assert "2k19" in describe(system, LAYOUT, DirectoryFiles(older)).warnings[0]
    other = make_virtio_win(tmp_path / "other", "2k12R2", "amd64")
    with pytest.raises(MissingDriver, match="2k22"):
        describe(system, LAYOUT, DirectoryFiles(other))
    image = older / "viostor/2k19/amd64/viostor.sys"
    image.write_bytes(image.read_bytes().replace(b"\x64\x86", b"\x4c\x01"))
    with pytest.raises(MissingDriver, match="no driver for amd64"):
        describe(system, LAYOUT, DirectoryFiles(older))


def test_fixed_addresses_left_behind_are_named(tmp_path: Path) -> None:
    root = make_windows(tmp_path / "guest", SERVER)
    hive = Hive((root / SYSTEM).read_bytes(), SYSTEM)
    card = "ControlSet002\\Services\\Tcpip\\Parameters\\Interfaces\\{1}"
    hive.set(card, "EnableDHCP", dword(0))
    hive.set(card, "IPAddress", multi_sz("192.0.2.7"))
    put(root, SYSTEM, hive.content())
    _, warnings = planned(guest_of(root, make_virtio_win(tmp_path / "virtio-win", "2k22", "amd64")), root)
    assert [sentence for sentence in warnings if "192.0.2.7" in sentence and "SYSTEM" in sentence]


def test_damage(tmp_path: Path) -> None:
    whole = (make_windows(tmp_path, SERVER) / SYSTEM).read_bytes()
    dirty = bytearray(whole)
    dirty[4] ^= 1
    dirty[508] ^= 1
    with pytest.raises(UnsupportedGuest, match="was being written"):
        Hive(bytes(dirty), SYSTEM)
    for damaged in (b"", b"regf", whole[:4096], bytes(len(whole)), whole[:12] + b"x" + whole[13:], whole[:5000]):
        with pytest.raises(UnsupportedGuest):
            values_of(damaged)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_hive_is_an_error_or_readable(data: st.DataObject) -> None:
    hive = bytearray(write({"Select": {"Current": dword(1)}, "Long": {"Text": sz("x" * 40)}}))
    for _ in range(data.draw(st.integers(1, 8))):
        hive[data.draw(st.integers(4096, 4096 + 600))] = data.draw(st.integers(0, 255))
    try:
        opened = Hive(bytes(hive), "SYSTEM")
        opened.set("New\\Key", "Name", sz("text"))
        Hive(opened.content(), "SYSTEM")
    except GuestError:
        return


NAMES = st.text("abcXYZ019 -", min_size=1, max_size=12).map(str.strip).filter(bool)
VALUES = st.one_of(
    st.integers(0, 2**32 - 1).map(dword), st.text("abc\\ü", max_size=30).map(sz), st.binary(max_size=60).map(binary)
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.tuples(NAMES, NAMES, NAMES), VALUES, max_size=20))
def test_what_is_set_is_there_and_set_once(values: dict[tuple[str, str, str], Value]) -> None:
    by_name = {tuple(part.lower() for part in name): (name, value) for name, value in values.items()}
    empty: Tree = {}
    hive = Hive(write(empty), "h")
    for (one, two, name), value in by_name.values():
        hive.set(f"{one}\\{two}", name, value)
    content = hive.content()
    again = Hive(content, "h")
    for (one, two, name), value in by_name.values():
        assert again.get(f"{one.upper()}\\{two.lower()}", name.upper()) == value
        again.set(f"{one}\\{two}", name, value)
    assert again.content() == content
