"""The concerns of a Windows guest, in the order in which it is safe to write: the disks' drivers first."""

from wavelift.guest.concern import Concern
from wavelift.guest.windows import firstboot, leftovers, loader, storage
from wavelift.guest.windows.inspection import WindowsGuest

CONCERNS: tuple[Concern[WindowsGuest], ...] = (storage, leftovers, loader, firstboot)
