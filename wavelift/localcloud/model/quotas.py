"""How much an account may have, in one table: ECS's own defaults where it publishes them."""

from dataclasses import dataclass

from wavelift.localcloud.entities import HOST_IMAGE, Disk, Entity, Image, Instance, SecurityGroup
from wavelift.localcloud.errors import ApiError
from wavelift.localcloud.store import Transaction


@dataclass(frozen=True)
class Quotas:
    # ECS sets how many disks and instances an account may have by its history; these two are only high enough.
    disks: int = 5000
    instances: int = 1000
    images: int = 100
    groups: int = 100
    snapshots_per_disk: int = 256
    accounts_per_image: int = 50


CODES: dict[type[Entity], str] = {
    Disk: "QuotaExceed.PostPaidDisk",
    Instance: "QuotaExceed.ElasticQuota",
    Image: "QuotaExceed.Image",
    SecurityGroup: "QuotaExceed.SecurityGroup",
}


def check(tx: Transaction, quotas: Quotas, kind: type[Entity], more: int = 1) -> None:
    """Refuse `more` of a kind when the account then had too many. System images count for nothing."""
    allowed = {Disk: quotas.disks, Instance: quotas.instances, Image: quotas.images, SecurityGroup: quotas.groups}
    free = 1 if kind is Image and tx.get(Image, HOST_IMAGE) is not None else 0
    if tx.count(kind) - free + more > allowed[kind]:
        raise ApiError(CODES[kind], f"The quota of {allowed[kind]} {kind.kind}s is exceeded.", 403)
