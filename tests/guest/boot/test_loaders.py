"""Menus of every boot loader: the root by a name that stays, consoles, and nothing else; once."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.guest.conftest import DEFAULTS, MENU, applied
from wavelift.guest.boot import arguments, efi, grub, loaders
from wavelift.guest.draft import Draft
from wavelift.guest.errors import PostconditionFailed, UnsupportedGuest
from wavelift.guest.facts import Devices, FileSystem, Firmware, Guest, Layout, System
from wavelift.guest.files import DirectoryFiles
from wavelift.manifest.wishes import Wishes

ROOT, SWAP = "11111111-aaaa", "22222222-bbbb"
DEVICES = Devices({(0, 1): ROOT, (0, 5): SWAP})
FS = FileSystem("/dev/sda1", "ext4", ROOT, (0, 1))
ESP = FileSystem("/dev/sda2", "vfat", "5E1F-000D", (0, 2))
BIOS = Guest(System("x", (), "", "x"), (), Layout(FS, {"/": FS}, DEVICES))
UEFI = replace(BIOS, layout=Layout(FS, {"/": FS, "/boot/efi": ESP}, DEVICES, Firmware.UEFI))
CONSOLES = "console=tty0 console=ttyS0,115200"
NOTHING = Wishes()


def tree(root: Path, **files: str | bytes) -> DirectoryFiles:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return DirectoryFiles(root)


def prepared(root: Path, guest: Guest = BIOS, concern: ModuleType = loaders) -> list[str]:
    """Plan, apply, plan again, check; the warnings of the first."""
    files = DirectoryFiles(root)
    draft = Draft(files)
    concern.plan(guest, NOTHING, draft)
    applied(root, draft.edits())
    again = Draft(DirectoryFiles(root))
    concern.plan(guest, NOTHING, again)
    assert again.edits() == []
    concern.check(guest, NOTHING, files)
    return draft.warnings


def test_grub(tmp_path: Path) -> None:
    tree(
        tmp_path,
        **{"boot/grub/grub.cfg": MENU, "etc/default/grub": DEFAULTS, "boot/grub/device.map": "(hd0) /dev/sda\n"},
    )
    assert prepared(tmp_path) == []
    expected = MENU.replace(
        "root=/dev/sda1 ro resume=/dev/sda5 quiet", f"root=UUID={ROOT} ro resume=UUID={SWAP} quiet {CONSOLES}"
    )
    assert (tmp_path / "boot/grub/grub.cfg").read_text() == expected
    defaults = (tmp_path / "etc/default/grub").read_text()
    assert f'GRUB_CMDLINE_LINUX_DEFAULT="quiet resume=UUID={SWAP}"' in defaults
    assert f'GRUB_CMDLINE_LINUX="{CONSOLES}"' in defaults
    assert "GRUB_DISABLE_LINUX_UUID=false   # by the installer\n" in defaults
    assert not (tmp_path / "boot/grub/device.map").exists()


def test_names_that_stay_are_left_alone(tmp_path: Path) -> None:
    menu = "\tlinux /vmlinuz root=/dev/mapper/vg-root ro console=ttyS0\n\tlinux16 /memtest86+.bin\n"
    tree(tmp_path, **{"boot/grub2/grub.cfg": menu})
    assert prepared(tmp_path) == [] and (tmp_path / "boot/grub2/grub.cfg").read_text() == menu


def test_a_root_that_is_nowhere_fails_the_check_and_a_resume_is_said(tmp_path: Path) -> None:
    tree(tmp_path, **{"boot/grub/grub.cfg": "\tlinux /vmlinuz root=/dev/sdq1 ro\n"})
    with pytest.raises(PostconditionFailed, match="/dev/sdq1"):
        prepared(tmp_path)
    tree(tmp_path, **{"boot/grub/grub.cfg": "\tlinux /vmlinuz root=/dev/sda1 resume=/dev/sdq2 ro\n"})
    assert "resume=/dev/sdq2 is on none" in prepared(tmp_path)[0]


def test_entries_of_red_hat_and_the_block_that_they_refer_to(tmp_path: Path) -> None:
    block = b"# GRUB Environment Block\nsaved_entry=abc\nkernelopts=root=/dev/sda1 ro crashkernel=auto rhgb quiet \n"
    tree(
        tmp_path,
        **{
            "boot/grub2/grub.cfg": 'insmod blscfg\nset kernelopts="root=/dev/sda1 ro "\nblscfg\n',
            "boot/grub2/grubenv": block + b"#" * (1024 - len(block)),
            "boot/loader/entries/abc-4.18.conf": "title x\nlinux /vmlinuz-4.18\noptions $kernelopts $tuned_params\n",
            "boot/loader/entries/abc-5.14.conf": "title y\nlinux /vmlinuz-5.14\noptions root=/dev/sda1 ro\n",
        },
    )
    prepared(tmp_path)
    found = (tmp_path / "boot/grub2/grubenv").read_bytes()
    assert len(found) == 1024 and found.endswith(b"##") and b"saved_entry=abc\n" in found
    assert f"kernelopts=root=UUID={ROOT} ro crashkernel=auto rhgb quiet {CONSOLES} \n".encode() in found
    assert f'set kernelopts="root=UUID={ROOT} ro  {CONSOLES}"\n' in (tmp_path / "boot/grub2/grub.cfg").read_text()
    entries = tmp_path / "boot/loader/entries"
    assert (entries / "abc-4.18.conf").read_text().endswith("options $kernelopts $tuned_params\n")
    assert (entries / "abc-5.14.conf").read_text().endswith(f"options root=UUID={ROOT} ro {CONSOLES}\n")


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        ("boot/extlinux/extlinux.conf", "label l0\n\tappend root=/dev/sda1 ro\n", "label l0\n\tappend root=@ ro %\n"),
        ("boot/syslinux/syslinux.cfg", "APPEND root=/dev/sda1\n", "APPEND root=@ %\n"),
        (
            "boot/grub/menu.lst",
            "# kopt=root=/dev/sda1 ro\nkernel /v root=/dev/sda1\n",
            "# kopt=root=@ ro %\nkernel /v root=@ %\n",
        ),
        (
            "boot/grub/grub.conf",
            "title x\n\tkernel /v ro root=/dev/sda1 quiet\n",
            "title x\n\tkernel /v ro root=@ quiet %\n",
        ),
    ],
)
def test_plain_menus(tmp_path: Path, path: str, before: str, after: str) -> None:
    tree(tmp_path, **{path: before})
    prepared(tmp_path)
    assert (tmp_path / path).read_text() == after.replace("@", f"UUID={ROOT}").replace("%", CONSOLES)


def test_systemd_boot(tmp_path: Path) -> None:
    tree(
        tmp_path,
        **{
            "boot/loader/loader.conf": "default arch\n",
            "boot/loader/entries/arch.conf": "title Arch\nlinux /vmlinuz-linux\noptions root=/dev/sda1 rw\n",
            "etc/kernel/cmdline": "root=/dev/sda1 rw\n",
        },
    )
    prepared(tmp_path)
    for path in ("boot/loader/entries/arch.conf", "etc/kernel/cmdline"):
        assert (tmp_path / path).read_text().endswith(f"root=UUID={ROOT} rw {CONSOLES}\n")


def test_no_loader_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedGuest, match="GRUB 2, extlinux or GRUB legacy, systemd-boot"):
        prepared(tmp_path)


def test_the_firmware_finds_a_shim_and_what_it_starts(tmp_path: Path) -> None:
    folder = "boot/efi/EFI/redhat"
    names = {"shimx64.efi": b"MZshim", "grubx64.efi": b"MZgrub", "mmx64.efi": b"MZmm", "grub.cfg": b"x"}
    tree(tmp_path, **{f"{folder}/{name}": content for name, content in names.items()})
    prepared(tmp_path, UEFI, efi)
    made = tmp_path / "boot/efi/EFI/BOOT"
    assert (made / "BOOTX64.EFI").read_bytes() == b"MZshim" and (made / "grubx64.efi").read_bytes() == b"MZgrub"
    assert sorted(path.name for path in made.iterdir()) == ["BOOTX64.EFI", "grubx64.efi", "mmx64.efi"]


@pytest.mark.parametrize("name", ["boot/efi/EFI/Boot/bootx64.efi", "boot/efi/EFI/BOOT/BOOTAA64.EFI"])
def test_a_fallback_that_is_there_is_left_alone(tmp_path: Path, name: str) -> None:
    tree(tmp_path, **{name: b"MZ", "boot/efi/EFI/debian/grubx64.efi": b"MZgrub"})
    prepared(tmp_path, UEFI, efi)
    assert sum(1 for path in (tmp_path / "boot/efi/EFI").rglob("*.[eE][fF][iI]")) == 2


def test_uefi_without_a_loader_or_an_esp_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedGuest, match="no boot loader on the EFI"):
        prepared(tmp_path, UEFI, efi)
    lost = replace(UEFI, layout=replace(UEFI.layout, mounts={"/": FS}))
    with pytest.raises(UnsupportedGuest, match="ESP"):
        prepared(tmp_path, lost, efi)
    prepared(tmp_path, BIOS, efi)


WORDS = st.lists(
    st.sampled_from(["root=/dev/sda1", "ro", "quiet", "console=tty0", "console=ttyS0,9600", "x=/dev/sda1"])
)


@given(WORDS)
def test_a_second_time_changes_nothing(words: list[str]) -> None:
    line = f"\tlinux /vmlinuz {' '.join(words)}\n"
    once = arguments.with_consoles(arguments.by_uuid(line, DEVICES).text)
    assert arguments.with_consoles(arguments.by_uuid(once, DEVICES).text) == once
    assert once.endswith("\n") and arguments.has_serial(once) and "x=UUID" not in once


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=200))
def test_any_defaults_are_read_and_changed_once(text: str) -> None:
    once = grub.rewrite_defaults(text, DEVICES).text
    assert grub.rewrite_defaults(once, DEVICES).text == once
