"""netplan: YAML in /etc/netplan. See netplan(5)."""

from __future__ import annotations

from typing import Any

import yaml

from wavelift.guest.draft import Draft
from wavelift.guest.errors import UnsupportedGuest
from wavelift.guest.files import GuestFiles, text_of
from wavelift.guest.network.stacks import UNBOUND, Card, is_physical
from wavelift.manifest.wishes import Interface

NAME = "netplan"
FOLDER = "/etc/netplan"
_HEAD = "# Changed by Wavelift; comments of the source are in its journal, /var/lib/wavelift.\n"


def cards(files: GuestFiles) -> list[Card]:
    found: dict[str, tuple[str, ...]] = {}
    for path in paths(files):
        for key, about in _ethernets(_load(files, path)).items():
            name = name_of(key, about)
            if is_physical(name):
                found[name] = found.get(name, ()) + tuple(map(_address, about.get("addresses") or ()))
    return [Card(name, addresses) for name, addresses in found.items()]


def unbind(draft: Draft) -> None:
    """What is matched by MAC, driver or path is matched by its name."""
    for path in paths(draft):
        document = _load(draft, path)
        changed = False
        for key, about in _ethernets(document).items():
            match = about.get("match")
            if not isinstance(match, dict) or match.keys() <= {"name"}:
                continue
            name = name_of(key, about)
            about["match"] = {"name": name}
            # It is renamed before netplan comes to see it.
            about.pop("set-name", None)
            about.pop("macaddress", None)
            changed = True
        if changed:
            _write(draft, path, document, UNBOUND)


def configure(draft: Draft, name: str, wish: Interface) -> None:
    for path in paths(draft):
        document = _load(draft, path)
        for key, about in _ethernets(document).items():
            if name_of(key, about) == name:
                for old in ("addresses", "dhcp4", "dhcp6", "gateway4", "gateway6", "routes", "nameservers"):
                    about.pop(old, None)
                about.update(_about(wish))
                _write(draft, path, document, f"{name} as wished for")
                return
    path = f"{FOLDER}/90-wavelift-{name}.yaml"
    _write(draft, path, {"network": {"version": 2, "ethernets": {name: _about(wish)}}}, f"{name} as wished for")


def bound(files: GuestFiles) -> list[str]:
    return [
        f"{path}: {key} by {', '.join(sorted(about['match'].keys() - {'name'}))}"
        for path in paths(files)
        for key, about in _ethernets(_load(files, path)).items()
        if isinstance(about.get("match"), dict) and not about["match"].keys() <= {"name"}
    ]


def paths(files: GuestFiles) -> list[str]:
    return [f"{FOLDER}/{name}" for name in files.names(FOLDER) if name.endswith((".yaml", ".yml"))]


def name_of(key: str, about: dict[str, Any]) -> str:
    """As the guest calls the card: the name that netplan gives it, or the one it is known by."""
    match = about.get("match")
    named = match.get("name") if isinstance(match, dict) else None
    return str(about.get("set-name") or named or key)


def _about(wish: Interface) -> dict[str, Any]:
    about: dict[str, Any] = {}
    if wish.method == "dhcp":
        about["dhcp4"] = True
    else:
        about["addresses"] = [str(address) for address in wish.addresses]
        if wish.gateway is not None:
            about["routes"] = [{"to": "0.0.0.0/0" if wish.gateway.version == 4 else "::/0", "via": str(wish.gateway)}]
    if wish.dns or wish.search:
        about["nameservers"] = {"addresses": [str(each) for each in wish.dns], "search": list(wish.search)}
    return about


def _ethernets(document: Any) -> dict[str, dict[str, Any]]:
    network = document.get("network") if isinstance(document, dict) else None
    found = network.get("ethernets") if isinstance(network, dict) else None
    cards = found if isinstance(found, dict) else {}
    return {str(key): about for key, about in cards.items() if isinstance(about, dict)}


def _address(written: Any) -> str:
    """With options it is a mapping of one key."""
    return str(next(iter(written))) if isinstance(written, dict) else str(written)


def _load(files: GuestFiles, path: str) -> Any:
    try:
        return yaml.safe_load(text_of(files, path))
    except yaml.YAMLError as error:
        raise UnsupportedGuest(
            f"{path} is no YAML that netplan could read: {' '.join(str(error).split())}", "mend it on the source"
        ) from None


def _write(draft: Draft, path: str, document: Any, reason: str) -> None:
    draft.write(path, _HEAD + yaml.safe_dump(document, sort_keys=False, default_flow_style=None), reason, 0o600)
