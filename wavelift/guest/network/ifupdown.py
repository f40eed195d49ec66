"""ifupdown: /etc/network/interfaces and what it includes. See interfaces(5)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatch

from wavelift.guest.draft import Draft
from wavelift.guest.files import GuestFiles, text_of
from wavelift.guest.network.stacks import UNBOUND, Card, is_physical
from wavelift.manifest.wishes import Interface

NAME = "ifupdown"
MAIN = "/etc/network/interfaces"
_IFACE = re.compile(r"^\s*iface\s+(\S+)\s+(inet6?)\s+(\S+)")
_STARTS = re.compile(r"^\s*(iface|mapping|auto|allow-\S+|source|source-directory|no-auto-down|no-scripts|rename)\s")
_SOURCE = re.compile(r"^\s*source(-directory)?\s+(\S+)", re.M)
_ADDRESS = re.compile(r"^\s+address\s+(\S+)", re.M)
_NETMASK = re.compile(r"^\s+netmask\s+(\S+)", re.M)
_MADE = re.compile(r"^\s+(bridge[_-]ports|bond[_-]\S+|vlan[_-]raw[_-]device)\s", re.M)
# `hwaddress` sets the card's own MAC: a cloud drops what comes from another one.
_BOUND = re.compile(r"^(\s+)(hwaddress\s.*)$", re.M)
_RENAME = re.compile(r"^\s*rename\s+mac/", re.M)


def cards(files: GuestFiles) -> list[Card]:
    found: dict[str, list[str]] = {}
    for path in paths(files):
        for stanza in _stanzas(text_of(files, path)):
            head = _IFACE.match(stanza)
            if head is None or not is_physical(head[1]) or _MADE.search(stanza):
                continue
            found.setdefault(head[1], []).extend(_addresses(stanza) if head[3] == "static" else [])
    return [Card(name, tuple(addresses)) for name, addresses in found.items()]


def unbind(draft: Draft) -> None:
    for path in paths(draft):
        text = text_of(draft, path)
        draft.write(path, _BOUND.sub(r"\1# Off since the move, by Wavelift: \2", text), UNBOUND)


def configure(draft: Draft, name: str, wish: Interface) -> None:
    """Its stanzas go, wherever they are, and new ones come in the place of the first."""
    placed = False
    for path in paths(draft):
        parts = []
        for stanza in _stanzas(text_of(draft, path)):
            head = _IFACE.match(stanza)
            if head is None or head[1] != name:
                parts.append(stanza)
            elif not placed:
                parts.append(_stanza(name, wish))
                placed = True
        draft.write(path, "".join(parts), f"{name} as wished for")
    if not placed:
        text = text_of(draft, MAIN)
        draft.write(MAIN, f"{text.rstrip()}\n\nauto {name}\n{_stanza(name, wish)}", f"{name} as wished for")


def bound(files: GuestFiles) -> list[str]:
    found = []
    for path in paths(files):
        lines = [match[0].strip() for match in _BOUND.finditer(text_of(files, path)) if "# Off" not in match[0]]
        found += [f"{path}: {line}" for line in lines]
        found += [f"{path}: {match[0].strip()}" for match in _RENAME.finditer(text_of(files, path))]
    return found


def paths(files: GuestFiles) -> list[str]:
    """The main file, and those that it includes."""
    if files.read(MAIN) is None:
        return []
    return list(dict.fromkeys([MAIN, *_included(files, MAIN, 0)]))


def _included(files: GuestFiles, path: str, depth: int) -> Iterator[str]:
    for folder, pattern in _SOURCE.findall(text_of(files, path)) if depth < 8 else ():
        full = pattern if pattern.startswith("/") else f"/etc/network/{pattern}"
        parent, _, last = (full.rstrip("/") + "/*" if folder else full).rpartition("/")
        for name in files.names(parent):
            other = f"{parent}/{name}"
            if fnmatch(name, last) and files.read(other) is not None and other != path:
                yield other
                yield from _included(files, other, depth + 1)


def _stanzas(text: str) -> list[str]:
    """The text in pieces that begin with a stanza's first line, what is before the first one among them."""
    pieces: list[str] = []
    for line in text.splitlines(keepends=True):
        if not pieces or _STARTS.match(line):
            pieces.append(line)
        else:
            pieces[-1] += line
    return pieces


def _addresses(stanza: str) -> list[str]:
    mask = _NETMASK.search(stanza)
    suffix = f"/{mask[1]}" if mask else ""
    return [address if "/" in address else address + suffix for address in _ADDRESS.findall(stanza)]


def _stanza(name: str, wish: Interface) -> str:
    if wish.method == "dhcp":
        return f"iface {name} inet dhcp\n{_names(wish)}\n"
    text = ""
    for number, address in enumerate(wish.addresses):
        text += f"iface {name} inet{'6' if address.version == 6 else ''} static\n    address {address}\n"
        if wish.gateway is not None and number == _first(wish):
            text += f"    gateway {wish.gateway}\n"
        text += _names(wish) if number == 0 else ""
    return text + "\n"


def _first(wish: Interface) -> int | None:
    """The address whose network the gateway is in, or that is of its kind."""
    assert wish.gateway is not None
    same = [number for number, each in enumerate(wish.addresses) if each.version == wish.gateway.version]
    return next((number for number in same if wish.gateway in wish.addresses[number].network), next(iter(same), None))


def _names(wish: Interface) -> str:
    text = f"    dns-nameservers {' '.join(map(str, wish.dns))}\n" if wish.dns else ""
    return text + (f"    dns-search {' '.join(wish.search)}\n" if wish.search else "")
