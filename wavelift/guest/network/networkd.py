"""systemd-networkd: /etc/systemd/network/*.network. See systemd.network(5)."""

from __future__ import annotations

from wavelift.guest.draft import Draft
from wavelift.guest.files import GuestFiles, text_of
from wavelift.guest.network.sections import extended, values, without
from wavelift.guest.network.stacks import UNBOUND, Card, is_physical
from wavelift.manifest.wishes import Interface

NAME = "systemd-networkd"
FOLDER = "/etc/systemd/network"
_BINDING = ("MACAddress", "PermanentMACAddress", "Path", "Driver", "OriginalName")


def cards(files: GuestFiles) -> list[Card]:
    found = []
    for path in _paths(files):
        text = text_of(files, path)
        addresses = [*values(text, "Network", "Address"), *values(text, "Address", "Address")]
        for names in values(text, "Match", "Name"):
            found += [Card(name, tuple(addresses)) for name in names.split() if is_physical(name)]
    return found


def unbind(draft: Draft) -> None:
    for path in _paths(draft):
        text = text_of(draft, path)
        bare = without(text, "Match", _BINDING)
        if bare == text:
            continue
        if not values(bare, "Match", "Name"):
            draft.warn(f"{path} is of the card with a MAC or slot of the source, and names none: it takes any now")
            bare = extended(bare, "Match", [("Type", "ether")])
        draft.write(path, without(bare, "Link", ("MACAddress",)), UNBOUND)


def configure(draft: Draft, name: str, wish: Interface) -> None:
    path = next((each for each in _paths(draft) if name in _names(text_of(draft, each))), "")
    text = text_of(draft, path) if path else f"[Match]\nName={name}\n"
    text = without(text, "Network", ("Address", "Gateway", "DHCP", "DNS", "Domains"))
    text = without(text, "Address", ("Address",))
    entries = [("DHCP", "yes")] if wish.method == "dhcp" else [("Address", str(each)) for each in wish.addresses]
    entries += [("Gateway", str(wish.gateway))] if wish.gateway is not None else []
    entries += [("DNS", str(each)) for each in wish.dns]
    entries += [("Domains", " ".join(wish.search))] if wish.search else []
    path = path or f"{FOLDER}/10-wavelift-{name}.network"
    draft.write(path, extended(text, "Network", entries), f"{name} as wished for")


def bound(files: GuestFiles) -> list[str]:
    return [
        f"{path}: {key}" for path in _paths(files) for key in _BINDING if values(text_of(files, path), "Match", key)
    ]


def _paths(files: GuestFiles) -> list[str]:
    return [f"{FOLDER}/{name}" for name in files.names(FOLDER) if name.endswith(".network")]


def _names(text: str) -> list[str]:
    return [name for names in values(text, "Match", "Name") for name in names.split()]
