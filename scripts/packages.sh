#!/bin/sh
# Installs the Debian packages that Wavelift needs. Asks for nothing; without root it says what to run, and stops.
set -eu

# python3-venv            the virtual environment
# qemu-system-x86         the local cloud's machines; qemu-utils: disk images
# python3-guestfs         preparing guests; linux-image-amd64 and libguestfs' appliance parts come with it
# libguestfs-xfs          growing XFS in the appliance, and making it in tests
# python3-hivex           registry hives of Windows guests
# mmdebstrap fakeroot uidmap e2fsprogs grub-pc-bin   building the demo source machine (uidmap: without root)
# ovmf                    firmware of UEFI machines; xfsprogs: a volume with reflinks for the local cloud
# qemu-guest-agent mtools  the small guest of the local cloud's own tests
# python3-libnbd          sources over NBD, live QEMU guests among them; nbdkit: a second server for its tests
# lvm2                    snapshots of logical volumes as sources
# exfat-fuse exfatprogs dosfstools   disks that travel, as others format them
# lz4 fdisk   an initramfs and partition tables as others make them, in tests
# grub-efi-amd64-bin extlinux btrfs-progs   machines of the OS matrix
# kmod                    depmod for the guest's module tables
packages="python3-venv qemu-system-x86 qemu-utils python3-guestfs python3-hivex libguestfs-tools libguestfs-xfs
          linux-image-amd64
          mmdebstrap fakeroot uidmap e2fsprogs grub-pc-bin grub-common kmod cpio lvm2 python3-libnbd nbdkit
          exfat-fuse exfatprogs dosfstools ovmf xfsprogs qemu-guest-agent mtools zstd lz4 fdisk grub-efi-amd64-bin extlinux
          btrfs-progs busybox-static debian-archive-keyring"

missing=""
for package in $packages; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing="$missing $package"
done
[ -z "$missing" ] && exit 0

if [ "$(id -u)" -ne 0 ]; then
  echo "These Debian packages are missing. Install them, then run make again:" >&2
  echo "    sudo apt-get install -y --no-install-recommends$missing" >&2
  exit 1
fi
echo "installing Debian packages:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -q >/dev/null
# shellcheck disable=SC2086 # a list of words
apt-get install -y -q --no-install-recommends $missing >/dev/null
