"""Root file systems of Debian releases, with what every machine of the matrix may use; made once per release."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

BUILD = Path(__file__).parents[3] / ".wavelift/build/matrix"
_KERNEL = "linux-image-amd64"
# For a machine with two, which is of this release.
_SECOND, _WITH_SECOND = "linux-image-rt-amd64", "bookworm"
_PACKAGES = (
    *("systemd-sysv", "udev", "dbus", "kmod", "iproute2", "isc-dhcp-client", "initramfs-tools", "dracut-core"),
    *("lvm2", "mdadm", "xfsprogs", "btrfs-progs", "e2fsprogs", "dosfstools", "zstd", "ifupdown", "network-manager"),
    # What peers run in the guest.
    "grub2-common",
    "grub-pc-bin",
    "netplan.io",
)
_LEFT_OUT = (
    *(f"/usr/share/{name}/*" for name in ("doc", "man", "locale", "info", "icons", "zoneinfo")),
    *(
        f"*/lib/modules/*/kernel/{part}/*"
        for part in (
            *("sound", "drivers/gpu", "drivers/media", "drivers/infiniband", "drivers/iio", "drivers/staging"),
            *("drivers/video", "drivers/bluetooth", "drivers/net/wireless", "net/bluetooth", "net/mac80211"),
        )
    ),
)
# The source's hardware, and what the layouts need; of virtio nothing.
MODULES = ("ahci", "sd_mod", "e1000", "ext4", "xfs", "btrfs", "vfat", "nls_ascii", "nls_cp437", "dm_mod", "raid1")
# Of a machine that was moved: what there is, told on its console.
_READY_UNIT = """\
[Unit]
Description=Tell what this machine has
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/matrix-ready
TimeoutStartSec=600
[Install]
WantedBy=graphical.target
"""
_READY = """\
#!/bin/sh
# Addresses may come later than the target that this runs after.
for _ in $(seq 30); do
  [ "$(ip -br -4 addr show scope global | wc -l)" -ge "$(cat /etc/matrix-cards)" ] && break
  sleep 2
done
{
  echo "MATRIX-BEGIN"
  echo "hostname=$(hostname)"
  echo "kernel=$(uname -r)"
  ip -br -4 addr show scope global | while read -r name _ addresses; do echo "card=$name $addresses"; done
  echo "gateway=$(ip -4 route show default | head -n 1)"
  findmnt -rn -o TARGET,SOURCE,FSTYPE --real | while read -r line; do echo "mount=$line"; done
  systemctl --failed --plain --no-legend | while read -r unit _; do echo "failed=$unit"; done
  lsmod | while read -r name _; do case "$name" in virtio*) echo "module=$name";; esac; done
  echo "MATRIX-END"
} > /run/matrix-told
# A login that starts meanwhile hangs the line up.
for _ in 1 2 3; do
  cat /run/matrix-told > /dev/ttyS0
  sleep 5
done
"""


def root_of(suite: str) -> Path:
    """An archive of the root of a release."""
    BUILD.mkdir(parents=True, exist_ok=True)
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    archive = BUILD / f"{suite}-{recipe}.tar"
    with (BUILD / f"{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            for stale in BUILD.glob(f"{suite}-*.tar"):
                stale.unlink()
            _make(suite, archive)
    return archive


def _make(suite: str, archive: Path) -> None:
    packages = [*_PACKAGES, _KERNEL]
    if suite == _WITH_SECOND:
        packages.append(_SECOND)
    if suite != "bullseye":
        packages.append("systemd-resolved")
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        # Every initramfs is made for its machine.
        hook = "mkdir -p $1/etc/initramfs-tools/conf.d && echo MODULES=list > $1/etc/initramfs-tools/conf.d/modules"
        hook += " && mkdir -p $1/etc/kernel && printf 'do_symlinks=no\\n' > $1/etc/kernel-img.conf"
        command = ["mmdebstrap", "--variant=minbase", "--quiet", f"--include={','.join(packages)}", "--skip=output/dev"]
        command += ["--dpkgopt=force-confold", "--dpkgopt=force-unsafe-io", f"--essential-hook={hook}"]
        command += [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
        made = Path(folder) / "root.tar"
        subprocess.run([*command, suite, str(made)], check=True, env=_environment(folder))
        shutil.move(made, archive)


def _environment(folder: str) -> dict[str, str]:
    return {"TMPDIR": folder, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


def unpack(suite: str, root: Path) -> None:
    subprocess.run(["tar", "--extract", "--numeric-owner", "-f", str(root_of(suite)), "-C", str(root)], check=True)
    (root / "usr/local/sbin/matrix-ready").write_text(_READY)
    (root / "usr/local/sbin/matrix-ready").chmod(0o755)
    unit = root / "etc/systemd/system/matrix-ready.service"
    unit.write_text(_READY_UNIT)
    wants = root / "etc/systemd/system/graphical.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / unit.name).symlink_to(f"../{unit.name}")
