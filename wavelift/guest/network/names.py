"""Names of network cards that stay when card, MAC and slot are others.

What is known of the target is the order of its cards, in which the kernel counts them: eth0, eth1. From there they are
renamed by systemd's .link files, and by a rule of udev on systems that are older than those, or where links are off.
Both also go into an initramfs that has the driver: a card that got its name there is not renamed again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from wavelift.guest.draft import Draft
from wavelift.guest.files import GuestFiles

LINKS = "/etc/systemd/network"
RULES = "/etc/udev/rules.d/70-wavelift-net.rules"
_OLD_RULES = "/etc/udev/rules.d/70-persistent-net.rules"
_LINK_NAME = re.compile(r"^10-wavelift-.+\.link$")
_DRIVER = "virtio_net"
_REASON = "network cards keep their names"
# A line of the generated rules that gives a name to a MAC.
_BOUND = re.compile(r"^\s*SUBSYSTEM==\"net\".*ATTR\{address\}==.*NAME=", re.M)
_OFF = "# Off since the move, by Wavelift: "


def plan(names: Sequence[str], draft: Draft) -> None:
    """`names` in the order of the target's cards."""
    for number, name in enumerate(names):
        draft.write(f"{LINKS}/10-wavelift-{name}.link", link(number, name), _REASON)
    if names:
        draft.write(RULES, rules(names), _REASON)
    old = draft.text(_OLD_RULES)
    if old is not None:
        draft.write(_OLD_RULES, without_macs(old), "names bound to the MACs of the source are off")


def files_of(files: GuestFiles) -> dict[str, bytes]:
    """Those that were written, by path."""
    paths = [f"{LINKS}/{name}" for name in files.names(LINKS) if _LINK_NAME.match(name)]
    return {path: content for path in [*paths, RULES] if (content := files.read(path)) is not None}


def link(number: int, name: str) -> str:
    return (
        f"# Card {number + 1} of the instance, by Wavelift.\n"
        f"[Match]\nOriginalName=eth{number}\nDriver={_DRIVER}\n\n[Link]\nNamePolicy=\nName={name}\n"
    )


def rules(names: Sequence[str]) -> str:
    lines = ["# The cards of the instance in their order, by Wavelift."]
    for number, name in enumerate(names):
        match = f'SUBSYSTEM=="net", ACTION=="add", KERNEL=="eth{number}", DRIVERS=="{_DRIVER}"'
        lines.append(f'{match}, NAME="{name}"')
    return "\n".join(lines) + "\n"


def without_macs(text: str) -> str:
    return "".join(_OFF + line if _BOUND.match(line) else line for line in text.splitlines(keepends=True))
