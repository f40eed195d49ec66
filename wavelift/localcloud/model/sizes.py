"""Which disks can be ordered: categories, performance levels and sizes in GiB."""

from dataclasses import dataclass

from wavelift.localcloud.entities import GIB
from wavelift.localcloud.errors import ApiError, invalid

ESSD = "cloud_essd"
ESSD_DEFAULT_LEVEL = "PL1"
RANGES: dict[tuple[str, str], tuple[int, int]] = {
    ("cloud", ""): (5, 2000),
    ("cloud_efficiency", ""): (20, 32768),
    ("cloud_ssd", ""): (20, 32768),
    (ESSD, "PL0"): (1, 65536),
    (ESSD, "PL1"): (20, 65536),
    (ESSD, "PL2"): (461, 65536),
    (ESSD, "PL3"): (1261, 65536),
    ("cloud_auto", ""): (1, 65536),
    ("cloud_essd_entry", ""): (10, 32768),
}
CATEGORIES = frozenset(category for category, _ in RANGES)
SYSTEM_DEFAULT = 40
SYSTEM_LIMIT = 2048
SYSTEM_LIMITS = {"cloud": 500}
SYSTEM_MINIMUM = {(ESSD, "PL0"): 1, ("cloud_auto", ""): 1, ("cloud_essd_entry", ""): 10}


@dataclass(frozen=True)
class Class:
    category: str
    level: str

    @classmethod
    def of(cls, category: str, level: str | None, where: str) -> "Class":
        if category not in CATEGORIES:
            raise ApiError(f"Invalid{where}Category.NotSupported", f"The disk category {category!r} is not supported.")
        if category != ESSD:
            return cls(category, "")
        chosen = level or ESSD_DEFAULT_LEVEL
        if (category, chosen) not in RANGES:
            raise invalid("PerformanceLevel", "PL0, PL1, PL2 and PL3 are.")
        return cls(category, chosen)

    def data_range(self) -> tuple[int, int]:
        return RANGES[self.category, self.level]

    def system_range(self) -> tuple[int, int]:
        low = SYSTEM_MINIMUM.get((self.category, self.level), 20)
        if self.level in {"PL2", "PL3"}:
            low = RANGES[self.category, self.level][0]
        return low, SYSTEM_LIMITS.get(self.category, SYSTEM_LIMIT)

    def check_data(self, size: int, code: str) -> None:
        low, high = self.data_range()
        if not low <= size <= high:
            raise ApiError(code, f"The size of a {self} disk is {low} to {high} GiB, not {size}.")

    def check_system(self, size: int) -> None:
        low, high = self.system_range()
        if not low <= size <= high:
            raise ApiError(
                "InvalidSystemDiskSize.ValueNotSupported",
                f"The size of a {self} system disk is {low} to {high} GiB, not {size}.",
            )

    def check_larger(self, system: bool, size: int, now: int) -> None:
        """Disks only grow, and not beyond what their category has."""
        if size <= now:
            raise ApiError("InvalidDiskSize.TooSmall", f"The new size must be more than {now} GiB.")
        _, high = self.system_range() if system else self.data_range()
        if size > high:
            raise ApiError("InvalidDiskSize.TooLarge", f"The size of a {self} disk is at most {high} GiB here.")

    def check_extras(self, size: int, iops: int) -> None:
        """Bursting, and IOPS ordered beyond those that come with the size."""
        if self.category != "cloud_auto":
            raise invalid("DiskCategory", "Only cloud_auto disks burst or have provisioned IOPS.")
        base = max(min(1800 + 50 * size, 50_000), 3000)
        most = min(1000 * size - base, 50_000) if size > 3 else 0
        if iops > max(0, most):
            raise invalid("ProvisionedIops", f"A disk of {size} GiB has at most {max(0, most)}.")

    def __str__(self) -> str:
        return f"{self.category} {self.level}".strip()


def check_snapshot(size: int, snapshot_size: int) -> None:
    if size < snapshot_size:
        raise ApiError("InvalidDiskSize.TooSmall", "Specified disk size is less than the size of snapshot.")


def to_bytes(size: int) -> int:
    return size * GIB
