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


class UnknownPack(PackError):
    """A pack of another version, or with something this version does not have; `what` and `value` say it."""

    default_code = "unknown_pack"

    def __init__(self, what: str, value: object) -> None:
        self.what, self.value = what, value
        super().__init__(
            f"This pack has the {what} {value}, which this version does not know.",
            "Use the same version of Wavelift on both sides.",
        )


class PackTooLarge(PackError):
    """A pack, or `what` of it, goes beyond the `limit` of the format."""

    default_code = "pack_too_large"

    def __init__(self, what: str, limit: str) -> None:
        self.what, self.limit = what, limit
        super().__init__(f"The pack's {what} goes beyond the limit of {limit}.", "Write smaller packs.")


class PackKeyMissing(PackError):
    """A sealed pack, and neither the `key` it was sealed with nor the one that wraps it (ids in hex)."""

    default_code = "pack_key_missing"

    def __init__(self, key: str, wrapping: str) -> None:
        self.key, self.wrapping = key, wrapping
        super().__init__(
            f"The pack is sealed with the key {key}, wrapped by {wrapping}; neither is here.",
            f"Give the key-encryption key {wrapping}.",
        )


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


class UnknownMap(MapError):
    """A block map of another version; `version` and `flags` say which."""

    default_code = "unknown_block_map"

    def __init__(self, version: int, flags: int) -> None:
        self.version, self.flags = version, flags
        super().__init__(
            f"This block map has version {version}, flags {flags}; this reads version 1 without flags.",
            "Run a full copy, or use the version of Wavelift that wrote it.",
        )


class MapTooLarge(MapError):
    """A file of a block map that is larger than any can be; sizes in bytes."""

    default_code = "block_map_too_large"

    def __init__(self, name: str, limit: int) -> None:
        self.name, self.limit = name, limit
        super().__init__(f"{name} is larger than the {limit} bytes it may have.", "Run a full copy.")


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


class BlocksNotThere(SinkError):
    """Copy records whose blocks the volume does not hold: `missing` has (offset, length) of each, in bytes. All else
    of their pack is durable."""

    default_code = "blocks_not_there"
    status = 409

    def __init__(self, volume: str, missing: list[tuple[int, int]]) -> None:
        self.volume, self.missing = volume, missing
        super().__init__(
            f"Volume {volume} does not hold the blocks that {len(missing)} records copy, the first of them to byte "
            f"{missing[0][0]}.",
            "Send these blocks as data.",
        )


class SinkUnreachable(SinkError):
    """No answer within the retries."""

    default_code = "sink_unreachable"


class WrongGateway(SinkError):
    """Something with another certificate answers at the gateway's address. Fingerprints as hex."""

    default_code = "wrong_fingerprint"

    def __init__(self, url: str, pinned: str, shown: str) -> None:
        self.url, self.pinned, self.shown = url, pinned, shown
        super().__init__(
            f"{url} shows a certificate with the fingerprint {shown}, expected is {pinned}; nothing was sent to it.",
            "If the gateway was set up anew, submit the job again with the fingerprint that it prints when it starts. "
            "If it was not, somebody stands in between.",
        )


class SinkUnauthorized(SinkError):
    """The write token is wrong, expired (401) or for something else (403)."""

    default_code = "sink_unauthorized"


class SourceError(BlockError):
    """A source cannot be opened or read as it should."""

    default_code = "source_unreadable"
