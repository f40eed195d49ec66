"""What this host has to give to machines: they share one amount of memory."""

from wavelift.localcloud.entities import Instance
from wavelift.localcloud.errors import ApiError
from wavelift.localcloud.model.context import Options
from wavelift.localcloud.runtimes.qemu import memory_of
from wavelift.localcloud.states import InstanceStatus
from wavelift.localcloud.store import Transaction


def need(instance: Instance) -> int:
    return 0 if instance.on_host else memory_of(instance.type)


def left(tx: Transaction, limit: int) -> int:
    """MiB that no machine has. A stopped one gives its memory back, as in ECS's economical mode."""
    return limit - sum(need(i) for i in tx.look(Instance) if i.status is not InstanceStatus.STOPPED)


def offered(options: Options, zone: str, name: str) -> bool:
    """Does the zone have that disk category or instance type at all?"""
    return (zone, name) not in options.withheld


def fits(tx: Transaction, limit: int, instance_type: str) -> bool:
    return memory_of(instance_type) <= left(tx, limit)


def may_start(tx: Transaction, limit: int, instance: Instance) -> bool:
    """An instance that is stopped."""
    return need(instance) <= left(tx, limit)


def check(tx: Transaction, limit: int, instance: Instance) -> None:
    if not may_start(tx, limit, instance):
        raise no_stock(limit)


def check_category(options: Options, zone: str, category: str, where: str) -> None:
    if not offered(options, zone, category):
        raise ApiError(f"Invalid{where}Category.NotSupported", f"{zone} has no disks of the category {category}.")


def no_stock(limit: int) -> ApiError:
    return ApiError(
        "OperationDenied.NoStock",
        f"Sold out: the machines of this cloud share {limit} MiB of memory, and too little of it is left.",
    )
