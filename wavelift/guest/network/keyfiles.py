"""NetworkManager's keyfiles. See nm-settings-keyfile(5)."""

from __future__ import annotations

from wavelift.guest.draft import Draft
from wavelift.guest.files import GuestFiles, text_of
from wavelift.guest.network.sections import extended, values, without
from wavelift.guest.network.stacks import UNBOUND, Card, is_physical
from wavelift.manifest.wishes import Interface

NAME = "NetworkManager"
FOLDER = "/etc/NetworkManager/system-connections"
_ETHERNET = ("ethernet", "802-3-ethernet")
# `cloned-mac-address` would be the card's own: a cloud drops what comes from another one.
_BINDING = ("mac-address", "cloned-mac-address", "mac-address-blacklist")
_OF_ADDRESSES = ("method", "gateway", "dns", "dns-search", *(f"address{number}" for number in range(1, 33)))


def cards(files: GuestFiles) -> list[Card]:
    found = []
    for path in paths(files):
        text = text_of(files, path)
        for name in _names(text):
            if is_physical(name):
                found.append(Card(name, tuple(_addresses(text))))
    return found


def unbind(draft: Draft) -> None:
    for path in paths(draft):
        text = text_of(draft, path)
        if not _names(text) and any(values(text, section, "mac-address") for section in _ETHERNET):
            draft.warn(f"{path} is of the card with a MAC of the source, and names none: it takes any card now")
        for section in _ETHERNET:
            text = without(text, section, _BINDING)
        draft.write(path, without(text, "match", ("path", "driver")), UNBOUND, 0o600)


def configure(draft: Draft, name: str, wish: Interface) -> None:
    path = next((each for each in paths(draft) if name in _names(text_of(draft, each))), "")
    text = text_of(draft, path) if path else f"[connection]\nid={name}\ntype=ethernet\ninterface-name={name}\n"
    for section, version in (("ipv4", 4), ("ipv6", 6)):
        entries = _entries(wish, version)
        # What is said of one kind of addresses leaves the other as it is.
        if entries or wish.method == "dhcp":
            text = extended(without(text, section, _OF_ADDRESSES), section, entries or [("method", "auto")])
    draft.write(path or f"{FOLDER}/wavelift-{name}.nmconnection", text, f"{name} as wished for", 0o600)


def bound(files: GuestFiles) -> list[str]:
    return [
        f"{path}: {key}"
        for path in paths(files)
        for section, keys in (*((each, _BINDING) for each in _ETHERNET), ("match", ("path", "driver")))
        for key in keys
        if values(text_of(files, path), section, key)
    ]


def paths(files: GuestFiles) -> list[str]:
    """Of wired cards."""
    every = (f"{FOLDER}/{name}" for name in files.names(FOLDER) if not name.startswith("."))
    return [path for path in every if set(values(text_of(files, path), "connection", "type")) & set(_ETHERNET)]


def _names(text: str) -> list[str]:
    return values(text, "connection", "interface-name")


def _addresses(text: str) -> list[str]:
    keys = [f"address{number}" for number in range(1, 33)]
    found = [value for section in ("ipv4", "ipv6") for key in keys for value in values(text, section, key)]
    return [value.split(",")[0] for value in found]


def _entries(wish: Interface, version: int) -> list[tuple[str, str]]:
    addresses = [address for address in wish.addresses if address.version == version]
    entries = []
    if addresses:
        gateway = f",{wish.gateway}" if wish.gateway is not None and wish.gateway.version == version else ""
        entries = [("method", "manual"), ("address1", f"{addresses[0]}{gateway}")]
        entries += [(f"address{number}", str(address)) for number, address in enumerate(addresses[1:], 2)]
    elif wish.method == "dhcp" and version == 4:
        entries = [("method", "auto")]
    servers = [str(each) for each in wish.dns if each.version == version]
    if entries and servers:
        entries.append(("dns", "".join(f"{each};" for each in servers)))
    if entries and wish.search:
        entries.append(("dns-search", "".join(f"{each};" for each in wish.search)))
    return entries
