"""How a machine's cards are configured, by the stack that it uses."""

from __future__ import annotations

from pathlib import Path

from tests.guest.osmatrix.cells import Card, Cell


def configure(root: Path, cell: Cell) -> None:
    (root / "etc/matrix-cards").write_text(f"{len(cell.cards)}\n")
    used = {"ifupdown": _ifupdown, "netplan": _netplan, "NetworkManager": _keyfiles, "systemd-networkd": _networkd}
    used[cell.network](root, cell.cards)
    if cell.network != "NetworkManager":
        _mask(root, "NetworkManager.service")
    if cell.network != "ifupdown":
        _write(root, "etc/network/interfaces", "auto lo\niface lo inet loopback\n")
    for unit in ("NetworkManager-wait-online.service", "systemd-networkd-wait-online.service"):
        _mask(root, unit)
    if cell.network in ("netplan", "systemd-networkd"):
        wants = root / "etc/systemd/system/multi-user.target.wants"
        wants.mkdir(exist_ok=True)
        link = wants / "systemd-networkd.service"
        if not link.is_symlink():
            link.symlink_to("/lib/systemd/system/systemd-networkd.service")


def _ifupdown(root: Path, cards: tuple[Card, ...]) -> None:
    text = "auto lo\niface lo inet loopback\n"
    for card in cards:
        text += f"\nallow-hotplug {card.name}\n"
        if card.address:
            text += f"iface {card.name} inet static\n    address {card.address}\n"
            text += f"    gateway {card.gateway}\n" if card.gateway else ""
        else:
            text += f"iface {card.name} inet dhcp\n"
    _write(root, "etc/network/interfaces", text)


def _netplan(root: Path, cards: tuple[Card, ...]) -> None:
    """As Ubuntu's installer and cloud-init have it: bound to the card's own MAC, and named."""
    text = "network:\n  version: 2\n  renderer: networkd\n  ethernets:\n"
    for number, card in enumerate(cards):
        text += f"    {card.name}:\n      match:\n        macaddress: 00:50:56:00:00:{number:02x}\n"
        text += f"      set-name: {card.name}\n"
        text += f"      addresses: [{card.address}]\n" if card.address else "      dhcp4: true\n"
        if card.gateway:
            text += f"      routes:\n        - to: 0.0.0.0/0\n          via: {card.gateway}\n"
    _write(root, "etc/netplan/50-installer.yaml", text, 0o600)


def _keyfiles(root: Path, cards: tuple[Card, ...]) -> None:
    for number, card in enumerate(cards):
        text = f"[connection]\nid={card.name}\nuuid=2a7b1f6e-0000-4000-8000-00000000000{number}\ntype=ethernet\n"
        text += f"interface-name={card.name}\n\n[ethernet]\nmac-address=00:50:56:00:00:{number:02X}\n\n[ipv4]\n"
        if card.address:
            gateway = f",{card.gateway}" if card.gateway else ""
            text += f"method=manual\naddress1={card.address}{gateway}\n"
        else:
            text += "method=auto\n"
        text += "\n[ipv6]\nmethod=ignore\n"
        _write(root, f"etc/NetworkManager/system-connections/{card.name}.nmconnection", text, 0o600)


def _networkd(root: Path, cards: tuple[Card, ...]) -> None:
    for number, card in enumerate(cards):
        text = f"[Match]\nMACAddress=00:50:56:00:00:{number:02x}\nName={card.name}\n\n[Network]\n"
        text += f"Address={card.address}\n" if card.address else "DHCP=ipv4\n"
        text += f"Gateway={card.gateway}\n" if card.gateway else ""
        _write(root, f"etc/systemd/network/20-{card.name}.network", text)


def _mask(root: Path, unit: str) -> None:
    link = root / "etc/systemd/system" / unit
    link.unlink(missing_ok=True)
    link.symlink_to("/dev/null")


def _write(root: Path, name: str, text: str, mode: int = 0o644) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
    (root / name).chmod(mode)
