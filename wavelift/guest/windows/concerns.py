"""The concerns of a Windows guest, in the order in which it is safe to write: the disks' drivers first."""

from wavelift.guest.windows import firstboot, leftovers, loader, storage

CONCERNS = (storage, leftovers, loader, firstboot)
