"""ifcfg files of Red Hat's family (network-scripts) and of SUSE (wicked): shell variables, one file per card."""

from __future__ import annotations

import re
from ipaddress import IPv4Interface

from wavelift.guest.draft import Draft
from wavelift.guest.files import GuestFiles, text_of
from wavelift.guest.network.stacks import UNBOUND, Card, is_physical
from wavelift.manifest.wishes import Interface

NAME = "ifcfg"
FOLDERS = ("/etc/sysconfig/network-scripts", "/etc/sysconfig/network")
_SUSE = FOLDERS[1]
_FILE = re.compile(r"^ifcfg-([A-Za-z0-9_.:@-]+)$")
_COPY = re.compile(r"(~|\.bak|\.old|\.orig|\.rpmnew|\.rpmsave|\.swp|\.template)$")
_LINE = re.compile(r"^\s*([A-Za-z_][A-Za-z0-9_]*)=(.*?)\s*$")
# HWADDR says which card it is; MACADDR and LLADDR give it another MAC, whose packets a cloud drops.
_BINDING = re.compile(r"^(HWADDR|MACADDR|LLADDR|SUBCHANNELS)$")
_OF_ADDRESSES = re.compile(
    r"^(BOOTPROTO|IPADDR\w*|PREFIX\w*|PREFIXLEN\w*|NETMASK\w*|NETWORK|BROADCAST|GATEWAY\d*|DNS\d|DOMAIN|"
    r"IPV6ADDR|IPV6ADDR_SECONDARIES|IPV6_DEFAULTGW|IPV6INIT|IPV6_AUTOCONF|PEERDNS|DEFROUTE)$"
)


def cards(files: GuestFiles) -> list[Card]:
    found = []
    for path in _paths(files):
        about = _about(text_of(files, path))
        if is_physical(name := _name(path, about)) and about.get("TYPE", "Ethernet") == "Ethernet":
            found.append(Card(name, tuple(_addresses(about))))
    return found


def unbind(draft: Draft) -> None:
    for path in _paths(draft):
        text = text_of(draft, path)
        about = _about(text)
        bare = _without(text, _BINDING)
        if bare != text and not about.get("DEVICE") and path.startswith(FOLDERS[0]):
            bare += f"DEVICE={_name(path, about)}\n"
        draft.write(path, bare, UNBOUND)


def configure(draft: Draft, name: str, wish: Interface) -> None:
    path = next((each for each in _paths(draft) if _name(each, _about(text_of(draft, each))) == name), "")
    if not path:
        folder = next((each for each in FOLDERS if draft.names(each)), FOLDERS[0])
        path = f"{folder}/ifcfg-{name}"
    suse = path.startswith(f"{_SUSE}/")
    text = _without(text_of(draft, path), _OF_ADDRESSES)
    if not text:
        text = "STARTMODE=auto\n" if suse else f"TYPE=Ethernet\nDEVICE={name}\nONBOOT=yes\n"
    if not text.endswith("\n"):
        text += "\n"
    draft.write(path, text + (_of_suse(wish) if suse else _of_red_hat(wish)), f"{name} as wished for")
    if suse and wish.gateway is not None:
        draft.write(f"{_SUSE}/ifroute-{name}", f"default {wish.gateway} - {name}\n", f"{name} as wished for")


def bound(files: GuestFiles) -> list[str]:
    return [f"{path}: {key}" for path in _paths(files) for key in _about(text_of(files, path)) if _BINDING.match(key)]


def _of_red_hat(wish: Interface) -> str:
    lines = ["BOOTPROTO=dhcp" if wish.method == "dhcp" else "BOOTPROTO=none"]
    fourth = [address for address in wish.addresses if isinstance(address, IPv4Interface)]
    for number, address in enumerate(fourth):
        suffix = str(number) if number else ""
        lines += [f"IPADDR{suffix}={address.ip}", f"PREFIX{suffix}={address.network.prefixlen}"]
    sixth = [str(address) for address in wish.addresses if not isinstance(address, IPv4Interface)]
    if sixth:
        lines += ["IPV6INIT=yes", "IPV6_AUTOCONF=no", f"IPV6ADDR={sixth[0]}"]
        lines += [f'IPV6ADDR_SECONDARIES="{" ".join(sixth[1:])}"'] if sixth[1:] else []
    if wish.gateway is not None:
        lines.append(f"{'GATEWAY' if wish.gateway.version == 4 else 'IPV6_DEFAULTGW'}={wish.gateway}")
    lines += [f"DNS{number}={server}" for number, server in enumerate(wish.dns, 1)]
    lines += [f'DOMAIN="{" ".join(wish.search)}"'] if wish.search else []
    return "".join(f"{line}\n" for line in lines)


def _of_suse(wish: Interface) -> str:
    if wish.method == "dhcp":
        return "BOOTPROTO='dhcp'\n"
    lines = ["BOOTPROTO='static'"]
    lines += [f"IPADDR{f'_{number}' if number else ''}='{each}'" for number, each in enumerate(wish.addresses)]
    return "".join(f"{line}\n" for line in lines)


def _paths(files: GuestFiles) -> list[str]:
    return [
        f"{folder}/{name}"
        for folder in FOLDERS
        for name in files.names(folder)
        if (found := _FILE.match(name)) and found[1] != "lo" and not _COPY.search(name)
    ]


def _name(path: str, about: dict[str, str]) -> str:
    return about.get("DEVICE") or path.rpartition("/ifcfg-")[2]


def _addresses(about: dict[str, str]) -> list[str]:
    found = []
    for key, value in about.items():
        if key.startswith("IPADDR"):
            suffix = key.removeprefix("IPADDR")
            length = about.get(f"PREFIX{suffix}") or about.get(f"NETMASK{suffix}") or about.get(f"PREFIXLEN{suffix}")
            found.append(value if "/" in value or not length else f"{value}/{length}")
    return [*found, *([about["IPV6ADDR"]] if "IPV6ADDR" in about else [])]


def _about(text: str) -> dict[str, str]:
    found = {match[1]: match[2].strip("\"'") for line in text.splitlines() if (match := _LINE.match(line))}
    return {key: value for key, value in found.items() if value}


def _without(text: str, keys: re.Pattern[str]) -> str:
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if not ((found := _LINE.match(line)) and keys.match(found[1])))
