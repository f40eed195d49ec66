"""What a preparation consists of."""

from __future__ import annotations

from typing import Protocol, TypeVar

from wavelift.guest.draft import Draft
from wavelift.guest.evidence import Check
from wavelift.guest.files import GuestFiles
from wavelift.manifest.wishes import Wishes

Prepared = TypeVar("Prepared", contravariant=True)


class Concern(Protocol[Prepared]):
    """A module with one reason to change. What it cannot handle it refuses by a `GuestError`."""

    def plan(self, guest: Prepared, wishes: Wishes, draft: Draft) -> None:
        """Add what has to change; nothing when it is so already."""

    def check(self, guest: Prepared, wishes: Wishes, files: GuestFiles) -> list[Check]:
        """Show from the files that it is so. Raises `PostconditionFailed`."""
