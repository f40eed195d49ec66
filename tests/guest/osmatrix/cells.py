"""Which machines there are. Each value of each dimension is in one at least."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Card:
    """A network card by the name that the source gives it; without an address it has one by DHCP."""

    name: str
    address: str = ""
    gateway: str = ""


STATIC = (Card("ens33", "10.0.2.33/24", "10.0.2.2"), Card("ens34", "192.168.77.34/24"))
DHCP = (Card("ens33"),)


@dataclass(frozen=True)
class Cell:
    """`stack`: what / lies on. `boot`: whether /boot is a file system of its own. `console`: whether the source has its
    console on the serial line."""

    name: str
    suite: Literal["bullseye", "bookworm", "trixie"] = "bookworm"
    firmware: Literal["bios", "uefi"] = "bios"
    fs: Literal["ext4", "xfs", "btrfs"] = "ext4"
    stack: Literal["partition", "lvm", "raid1"] = "partition"
    boot: bool = False
    loader: Literal["grub", "extlinux"] = "grub"
    initramfs: Literal["initramfs-tools", "dracut"] = "initramfs-tools"
    network: Literal["ifupdown", "netplan", "NetworkManager", "systemd-networkd"] = "ifupdown"
    cards: tuple[Card, ...] = field(default=STATIC)
    kernels: int = 1
    console: bool = True

    @property
    def disks(self) -> int:
        return 2 if self.stack == "raid1" else 1

    def row(self) -> dict[str, str]:
        addresses = ", ".join(card.address or "DHCP" for card in self.cards)
        return {
            "machine": self.name,
            "Debian": {"bullseye": "11", "bookworm": "12", "trixie": "13"}[self.suite],
            "firmware": {"bios": "BIOS, MBR", "uefi": "UEFI, GPT"}[self.firmware],
            "/": f"{self.fs} on {self.stack}" + (", own /boot" if self.boot else ""),
            "loader": self.loader,
            "initramfs": self.initramfs + (", two kernels" if self.kernels > 1 else ""),
            "network": f"{self.network}: {addresses}",
        }


CELLS = (
    Cell("deb12-mbr-ext4"),
    Cell("deb11-mbr-ext4", suite="bullseye", cards=DHCP),
    Cell("deb13-mbr-ext4", suite="trixie", network="systemd-networkd"),
    Cell("deb12-uefi-xfs-boot", firmware="uefi", fs="xfs", boot=True, network="netplan"),
    Cell("deb13-uefi-btrfs", suite="trixie", firmware="uefi", fs="btrfs", network="NetworkManager"),
    Cell("deb12-lvm-xfs", fs="xfs", stack="lvm", boot=True, network="systemd-networkd"),
    Cell("deb11-uefi-lvm", suite="bullseye", firmware="uefi", stack="lvm", boot=True),
    Cell("deb12-raid1", stack="raid1", cards=DHCP),
    Cell("deb13-raid1-dracut", suite="trixie", stack="raid1", initramfs="dracut", network="netplan"),
    Cell("deb12-dracut-ext4", initramfs="dracut", network="NetworkManager"),
    Cell("deb13-dracut-lvm", suite="trixie", stack="lvm", boot=True, initramfs="dracut", network="systemd-networkd"),
    Cell("deb11-dracut-xfs", suite="bullseye", fs="xfs", initramfs="dracut", cards=DHCP),
    Cell("deb12-extlinux", loader="extlinux"),
    Cell("deb13-extlinux-boot", suite="trixie", loader="extlinux", boot=True, network="netplan", cards=DHCP),
    Cell("deb12-two-kernels", kernels=2, network="netplan"),
    Cell("deb12-btrfs-no-console", fs="btrfs", console=False, network="NetworkManager"),
    Cell("deb13-uefi-lvm-btrfs", suite="trixie", firmware="uefi", fs="btrfs", stack="lvm", boot=True, cards=DHCP),
    Cell("deb11-netplan", suite="bullseye", network="netplan"),
)
