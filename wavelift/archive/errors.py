"""What can be wrong with an archive."""

from __future__ import annotations

from collections.abc import Sequence

from wavelift.blocks.errors import BlockError


class ArchiveError(BlockError):
    """An archive that cannot be used as it is."""

    default_code = "bad_archive"


class NoArchive(ArchiveError):
    """There is none in that place: the store has said so itself."""

    default_code = "no_archive"

    def __init__(self, place: str) -> None:
        self.place = place
        super().__init__(f"There is no archive in {place}.", "Name the place of one, or a new one to begin with.")


class NoGeneration(ArchiveError):
    """The archive has no such generation; `there` are those it has."""

    default_code = "no_generation"

    def __init__(self, place: str, generation: int, there: Sequence[int]) -> None:
        self.place, self.generation, self.there = place, generation, list(there)
        names = ", ".join(map(str, self.there)) or "none"
        super().__init__(f"{place} has no generation {generation}; it has: {names}.", "Name one of them.")


class Damaged(ArchiveError):
    """An object of an archive is missing, or not what was put; `key` names it."""

    default_code = "archive_damaged"

    def __init__(self, place: str, key: str, why: str = "damaged") -> None:
        self.place, self.key = place, key
        super().__init__(f"{key} of {place} is {why}.", "Bring it back from another copy of the archive.")


class KeyMissing(ArchiveError):
    """An archive is sealed with the key-encryption key `key` (its id in hex), and that is not the one given."""

    default_code = "archive_key_missing"

    def __init__(self, place: str, key: str) -> None:
        self.place, self.key = place, key
        super().__init__(
            f"{place} is sealed with the key {key}, which is not here.", "Give the key it was made with: --key-file."
        )


class NotSealed(ArchiveError):
    """A key was given for an archive that says that nothing in it is sealed."""

    default_code = "archive_not_sealed"

    def __init__(self, place: str) -> None:
        self.place = place
        super().__init__(
            f"{place} is not sealed, and a key was given for it.",
            "If it was made without a key, leave the key out; if it was not, somebody has changed it.",
        )


class OtherContent(ArchiveError):
    """The archive holds another content under that number, or another one to build on. `root`, hex, is what it holds;
    `wanted` what should be there."""

    default_code = "other_content"

    def __init__(self, place: str, generation: int, root: str, wanted: str) -> None:
        self.place, self.generation, self.root, self.wanted = place, generation, root, wanted
        super().__init__(
            f"Generation {generation} of {place} has the root {root}, not {wanted}.", "Copy in full, as a new one."
        )


class BlocksLost(ArchiveError):
    """Blocks of a generation that no sound pack holds: `disk`, `ranges` as (start, end) in bytes, and the keys of the
    `packs` that are missing or damaged, where that is known."""

    default_code = "blocks_lost"

    def __init__(self, disk: str, ranges: Sequence[tuple[int, int]], packs: Sequence[str]) -> None:
        self.disk, self.ranges, self.packs = disk, list(ranges), list(packs)
        where = ", ".join(f"{start} to {end}" for start, end in self.ranges[:8])
        more = f" and {len(self.ranges) - 8} more" if len(self.ranges) > 8 else ""
        cause = f"; missing or damaged: {', '.join(self.packs[:8])}" if self.packs else ""
        super().__init__(
            f"Disk {disk}: no sound pack holds the bytes {where}{more}{cause}.",
            "Bring the packs back from another copy of the archive, or copy the disk in full once more.",
        )


class PacksLost(ArchiveError):
    """Packs that were put are not in the store's list; `packs` are their keys."""

    default_code = "packs_lost"

    def __init__(self, place: str, packs: Sequence[str]) -> None:
        self.place, self.packs = place, list(packs)
        super().__init__(
            f"{place} took {len(self.packs)} packs that it does not have, {self.packs[0]} first.",
            "See to it that nothing else deletes there, and copy once more: all that the generation adds is put again.",
        )
