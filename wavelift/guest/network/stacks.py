"""What every way to configure cards has in common: what it configures, and how that is changed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from wavelift.guest.draft import Draft
from wavelift.guest.files import GuestFiles
from wavelift.manifest.wishes import Interface

# Made by software: bridges, bonds, tunnels, containers' ends; and names with a VLAN or an alias.
_VIRTUAL = re.compile(r"^(lo|br.*|bond.*|team.*|virbr.*|docker.*|veth.*|tun.*|tap.*|wg.*|dummy.*|vlan.*|.*[.:@]\d+)$")
UNBOUND = "no network card is bound to a MAC of the source"


@dataclass(frozen=True)
class Card:
    """A network card that the guest configures, by the name it has there. `addresses` with their prefixes, none where
    it asks for them (DHCP)."""

    name: str
    addresses: tuple[str, ...]


class Stack(Protocol):
    """A module for one way to configure cards."""

    NAME: str

    def cards(self, files: GuestFiles) -> list[Card]:
        """Those it configures by one name each; bridges and the like, and patterns of names, are left out."""

    def unbind(self, draft: Draft) -> None:
        """Take MACs and slots of the source out of what matches cards."""

    def configure(self, draft: Draft, name: str, wish: Interface) -> None:
        """Give a card other addresses, or DHCP."""

    def bound(self, files: GuestFiles) -> list[str]:
        """What still matches a MAC or a slot, as file and text."""


def is_physical(name: str) -> bool:
    return not _VIRTUAL.match(name) and not any(letter in name for letter in "*?[")


def natural(name: str) -> list[tuple[int, str]]:
    """For sorting: eth2 before eth10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|\D+", name)]
