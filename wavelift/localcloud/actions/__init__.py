"""One module per family of resources: a request becomes a call of the model, its result a response."""

from wavelift.localcloud.actions import (
    account,
    commands,
    disks,
    images,
    instance_lists,
    instances,
    network,
    regions,
    snapshots,
    tags,
    tasks,
    transfers,
)
from wavelift.localcloud.actions.registry import ACTIONS, lookup

__all__ = [
    "ACTIONS",
    "account",
    "commands",
    "disks",
    "images",
    "instance_lists",
    "instances",
    "lookup",
    "network",
    "regions",
    "snapshots",
    "tags",
    "tasks",
    "transfers",
]
