"""What can keep a guest from being prepared: each an error with a code, a sentence and what to do."""


class GuestError(Exception):
    """A guest could not be prepared."""

    code = "guest"

    def __init__(self, message: str, remedy: str) -> None:
        self.message = message
        self.remedy = remedy
        super().__init__(f"{message} ({remedy})")

    def to_dict(self) -> dict[str, str]:
        return {"code": self.code, "message": self.message, "remedy": self.remedy}


class NoOperatingSystem(GuestError):
    """Nothing on the disks looks like an installed system."""

    code = "no_operating_system"


class UnsupportedGuest(GuestError):
    """There is a system, of a kind that is not handled; nothing was changed."""

    code = "unsupported_guest"


class MissingDriver(GuestError):
    """The guest's own kernel packages do not hold a driver that it needs."""

    code = "missing_driver"


class DamagedFileSystem(GuestError):
    """A file system of the guest cannot be mounted."""

    code = "damaged_file_system"


class NoSpace(GuestError):
    """What has to be written does not fit into the guest's file system."""

    code = "no_space"


class ApplianceFailed(GuestError):
    """The appliance could not be started, or failed at work."""

    code = "appliance_failed"


class PostconditionFailed(GuestError):
    """What was written was read again, and it is not what it has to be."""

    code = "postcondition_failed"


class Cancelled(GuestError):
    """The preparation was told to stop."""

    code = "cancelled"


class NothingToUndo(GuestError):
    """The guest has no journal of a preparation, or none that can be read."""

    code = "nothing_to_undo"


class ChangedSince(GuestError):
    """What was prepared is not as it was left: taking it back would lose what came after."""

    code = "changed_since"
