"""Every card of the guest has the name and the addresses on the target that it had, or those that are wished for."""

from __future__ import annotations

from collections.abc import Sequence

from wavelift.guest.draft import Draft
from wavelift.guest.errors import PostconditionFailed, UnsupportedGuest
from wavelift.guest.evidence import REMEDY, Check
from wavelift.guest.facts import Guest
from wavelift.guest.files import GuestFiles
from wavelift.guest.network import cloudinit, hostname, ifcfg, ifupdown, keyfiles, names, netplan, networkd
from wavelift.guest.network.stacks import Card, Stack, natural
from wavelift.manifest.wishes import Interface, Wishes

# A card that several of them configure is the first one's, as the distributions that install more than one have it.
STACKS: tuple[Stack, ...] = (netplan, ifupdown, ifcfg, keyfiles, networkd)


def plan(guest: Guest, wishes: Wishes, draft: Draft) -> None:
    for stack in STACKS:
        stack.unbind(draft)
    found = _cards(draft)
    for name, wish in _assigned(wishes.network.interfaces, list(found)).items():
        if wish.method != "keep":
            (found[name][0] if name in found else _installed(draft)).configure(draft, name, wish)
    known = _ordered(wishes, list(_cards(draft)))
    if not known:
        draft.warn("no network card is configured by a name: cards of the target are found by what the guest does")
    for number, name in enumerate(known):
        if name.startswith("eth") and name[3:].isdigit() and int(name[3:]) != number:
            draft.warn(f"card {number + 1} is called {name}, as the kernel calls another one at first")
    names.plan(known, draft)
    cloudinit.plan(draft)
    if wishes.hostname is not None:
        hostname.plan(wishes.hostname, draft)


def check(guest: Guest, wishes: Wishes, files: GuestFiles) -> list[Check]:
    bound = [each for stack in STACKS for each in stack.bound(files)]
    if bound:
        raise PostconditionFailed(f"network cards are still bound to the source's: {'; '.join(bound)}", REMEDY)
    found = _cards(files)
    written = names.files_of(files)
    lacking = [name for name in found if f"{names.LINKS}/10-wavelift-{name}.link" not in written]
    if lacking or (found and names.RULES not in written):
        raise PostconditionFailed(f"nothing keeps the names of {', '.join(lacking) or 'the cards'}", REMEDY)
    return [Check("network", "; ".join(_shown(*each) for each in found.values()))] if found else []


def _cards(files: GuestFiles) -> dict[str, tuple[Stack, Card]]:
    """Who configures each card, in the order of their names."""
    found: dict[str, tuple[Stack, Card]] = {}
    for stack in STACKS:
        for card in stack.cards(files):
            found.setdefault(card.name, (stack, card))
    return dict(sorted(found.items(), key=lambda item: natural(item[0])))


def _assigned(wished: Sequence[Interface], known: list[str]) -> dict[str, Interface]:
    """Each wish by the name of its card: its own, or the next that no other wish names."""
    named = {wish.name for wish in wished if wish.name}
    free = [name for name in known if name not in named]
    found = {}
    for number, wish in enumerate(wished):
        name = wish.name or (free.pop(0) if free else None)
        if name is None:
            raise UnsupportedGuest(
                f"card {number + 1} of network.interfaces has no name, and the guest configures {len(known)}",
                "give it a name, such as eth0",
            )
        found[name] = wish
    return found


def _ordered(wishes: Wishes, known: list[str]) -> list[str]:
    """Those that are wished for first, as the instance has them; then the others by their names."""
    first = [name for name in _assigned(wishes.network.interfaces, known) if name in known]
    return [*first, *(name for name in known if name not in first)]


def _installed(files: GuestFiles) -> Stack:
    """What to configure a card with that the guest knows nothing of."""
    if files.names(netplan.FOLDER):
        return netplan
    if any(files.names(folder) for folder in ifcfg.FOLDERS):
        return ifcfg
    if files.names(keyfiles.FOLDER):
        return keyfiles
    return ifupdown if files.read(ifupdown.MAIN) is not None else networkd


def _shown(stack: Stack, card: Card) -> str:
    return f"{card.name} {', '.join(card.addresses) or 'by DHCP or as it finds'} ({stack.NAME})"
