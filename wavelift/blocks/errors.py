"""What can go wrong with blocks: typed fields for a program, one sentence and a remedy for a person."""

from __future__ import annotations

from typing import ClassVar


class BlockError(Exception):
    """Base of the engine's errors: `code`, `message`, `remedy`, and the HTTP status it travels with."""

    default_code: ClassVar[str] = "block_error"
    status: ClassVar[int] = 422

    def __init__(self, message: str, remedy: str = "", *, code: str | None = None) -> None:
        self.code: str = code or self.default_code
        self.message: str = message
        self.remedy: str = remedy
        super().__init__(f"{message} {remedy}".strip())


class PackError(BlockError):
    """These bytes are not a pack this version can read."""

    default_code = "bad_pack"


class CorruptPack(PackError):
    """The pack was damaged; `disk` and `offset` (bytes) say where, None where that itself is unknown."""

    default_code = "corrupt"

    def __init__(self, reason: str, disk: str | None = None, offset: int | None = None) -> None:
        self.disk = disk
        self.offset = offset
        where = "" if disk is None else f" on disk {disk}" + ("" if offset is None else f" at byte {offset}")
        super().__init__(f"The pack is corrupt{where}: {reason}.", "Send it again; nothing unproven was written.")


class MapError(BlockError):
    """A block map is damaged, missing or of another shape."""

    default_code = "bad_block_map"


class VolumeTooSmall(BlockError):
    """The disk does not fit. Sizes in bytes."""

    default_code = "volume_too_small"

    def __init__(self, disk: str, disk_size: int, volume: str, volume_size: int) -> None:
        self.disk, self.disk_size, self.volume, self.volume_size = disk, disk_size, volume, volume_size
        super().__init__(
            f"Disk {disk} has {disk_size} bytes and does not fit on volume {volume} with {volume_size}.",
            f"Make the volume at least {-(-disk_size // 2**30)} GiB.",
        )


class SinkError(BlockError):
    """The target refused; its own code and sentence are handed on."""

    default_code = "sink_refused"
    status = 502


class SinkUnreachable(SinkError):
    """No answer within the retries."""

    default_code = "sink_unreachable"


class SinkUnauthorized(SinkError):
    """The write token is wrong, expired (401) or for something else (403)."""

    default_code = "sink_unauthorized"


class SourceError(BlockError):
    """A source cannot be opened or read as it should."""

    default_code = "source_unreadable"
