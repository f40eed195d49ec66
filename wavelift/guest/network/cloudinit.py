"""cloud-init, where it is installed: it finds itself on a new instance, and must not make another machine of it."""

from __future__ import annotations

from wavelift.guest.draft import Draft
from wavelift.guest.files import GuestFiles

FILE = "/etc/cloud/cloud.cfg.d/99-wavelift.cfg"
_INSTALLED = ("/etc/cloud/cloud.cfg", "/usr/bin/cloud-init")
# The last file of this folder in order holds; on a new instance id the modules of a first boot run again.
_TEXT = """\
# The machine was moved here, not made here. By Wavelift.
network: {config: disabled}
preserve_hostname: true
manage_etc_hosts: false
ssh_deletekeys: false
ssh_pwauth: unchanged
users: []
disable_root: false
resize_rootfs: false
growpart: {mode: "off"}
"""


def plan(draft: Draft) -> None:
    if installed(draft):
        draft.write(FILE, _TEXT, "cloud-init keeps the machine as it is")


def installed(files: GuestFiles) -> bool:
    return any(files.read(path) is not None for path in _INSTALLED)
