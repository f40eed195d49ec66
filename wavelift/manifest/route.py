"""On what way a migration's generations travel, and where they end."""

from __future__ import annotations

from enum import StrEnum


class Carrier(StrEnum):
    """What takes one generation from the agent: a gateway straight away, a bucket, disks that are shipped."""

    GATEWAY = "gateway"
    BUCKET = "bucket"
    DISKS = "disks"


class Route(StrEnum):
    DIRECT = "direct"
    VIA_OSS = "via oss"
    SEED_OFFLINE_THEN_DIRECT = "seed offline, then direct"
    SEED_OFFLINE_THEN_OSS = "seed offline, then oss"
    ARCHIVE_ONLY = "archive only"

    @property
    def seeded(self) -> bool:
        """Whether the full copy travels on disks."""
        return self in (Route.SEED_OFFLINE_THEN_DIRECT, Route.SEED_OFFLINE_THEN_OSS)

    @property
    def lands(self) -> bool:
        """Whether volumes in the cloud get every generation; otherwise the archive is the last stop."""
        return self is not Route.ARCHIVE_ONLY

    @property
    def uses_archive(self) -> bool:
        return self in (Route.VIA_OSS, Route.SEED_OFFLINE_THEN_OSS, Route.ARCHIVE_ONLY)

    def carrier(self, generation: int) -> Carrier:
        if self.seeded and generation == 1:
            return Carrier.DISKS
        return Carrier.BUCKET if self.uses_archive else Carrier.GATEWAY
