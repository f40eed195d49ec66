"""What RunInstances and CreateInstance order, checked and turned into instances and their disks."""

import ipaddress
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from wavelift.localcloud.entities import (
    BLOCKS,
    INSTANCE_TYPES,
    VSWITCHES,
    Disk,
    Image,
    ImageDevice,
    Instance,
    SecurityGroup,
    new_id,
)
from wavelift.localcloud.errors import ApiError, invalid, missing, not_found
from wavelift.localcloud.model import names, sizes
from wavelift.localcloud.model.context import find
from wavelift.localcloud.model.disks import DATA_DISKS, ready_snapshot
from wavelift.localcloud.states import ImageStatus
from wavelift.localcloud.store import Transaction

DEFAULT_CATEGORY = "cloud_efficiency"


@dataclass(frozen=True)
class OrderedDisk:
    """Of the system disk, or of one data disk; unset fields are the image's or the default ones."""

    category: str | None = None
    level: str | None = None
    size: int | None = None
    snapshot: str | None = None
    device: str | None = None
    name: str = ""
    description: str = ""
    delete_with_instance: bool = True


@dataclass(frozen=True)
class InstanceOrder:
    image: str
    type: str
    vswitch: str | None
    zone: str | None
    groups: Sequence[str]
    amount: int = 1
    least: int | None = None  # fewer than `amount` will do
    starts: bool = True
    name: str = ""
    host_name: str = ""
    unique_suffix: bool = False
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    user_data: str = ""
    key_pair: str = ""
    private_address: str | None = None
    bandwidth: int = 0
    system_disk: OrderedDisk = field(default_factory=OrderedDisk)
    data_disks: Sequence[OrderedDisk] = ()
    dry_run: bool = False


Made = tuple[Instance, list[Disk]]


def prepare(tx: Transaction, order: InstanceOrder) -> list[Made]:
    image = find(tx, Image, order.image)
    if image.status not in {ImageStatus.AVAILABLE, ImageStatus.DEPRECATED}:
        raise ApiError("ImageNotAvailable", f"The image is {image.status.value}.")
    if order.type not in INSTANCE_TYPES:
        raise ApiError("InvalidInstanceType.ValueNotSupported", f"There is no instance type {order.type!r}.")
    vswitch, zone = _place(order)
    if not order.groups:
        raise missing("SecurityGroupId")
    for group in order.groups:
        find(tx, SecurityGroup, group)
    named = names.numbered(order.name, order.amount, order.unique_suffix, "InstanceNameExceed")
    hosts = names.numbered(order.host_name, order.amount, order.unique_suffix, "HostnameExceed")
    for name in filter(None, named):
        names.check_name(name)
    for host in filter(None, hosts):
        names.check_host_name(host)
    private = _private_addresses(tx, order, vswitch)
    made = []
    for index in range(order.amount):
        instance = _instance(tx, order, image, vswitch, zone)
        instance.name = named[index] or instance.id
        instance.host_name = hosts[index] or instance.id.replace("-", "Z", 1)
        instance.private = private[index]
        disks = [new_system_disk(image, instance, order.system_disk), *_data_disks(tx, image, instance, order)]
        made.append((instance, disks))
    return made


def _instance(tx: Transaction, order: InstanceOrder, image: Image, vswitch: str, zone: str) -> Instance:
    number = tx.next_number("instances")
    return Instance(
        id=new_id(Instance.prefix),
        created=time.time(),
        description=order.description,
        tags=order.tags,
        type=order.type,
        image=image.id,
        zone=zone,
        vswitch=vswitch,
        groups=list(order.groups),
        boot_mode=boot_mode(image),
        key_pair=order.key_pair,
        address=address(int(tx.setting("network") or 0), number),
        mac=mac(number),
        bandwidth=order.bandwidth,
        public=order.starts,
        user_data=order.user_data,
        begins_stopped=not order.starts,
    )


def boot_mode(image: Image) -> Literal["BIOS", "UEFI"]:
    """Every type can do both, so UEFI-Preferred is UEFI."""
    return "BIOS" if image.boot_mode == "BIOS" else "UEFI"


def _private_addresses(tx: Transaction, order: InstanceOrder, vswitch: str) -> list[str]:
    """The one that is asked for, and those that follow it."""
    if order.private_address is None:
        return [""] * order.amount
    try:
        first = ipaddress.IPv4Address(order.private_address)
    except ValueError:
        raise ApiError("InvalidPrivateIpAddress.Malformed", "Specified private IP address is malformed.") from None
    wanted = [first + n for n in range(order.amount)]
    hosts = list(ipaddress.IPv4Network(BLOCKS[vswitch]).hosts())[:-3]  # the last ones are the service's own
    if any(each not in hosts for each in wanted):
        raise ApiError("InvalidPrivateIpAddress", f"{first} is not in {BLOCKS[vswitch]}, the block of the vSwitch.")
    used = {instance.private for instance in tx.all(Instance)}
    if any(str(each) in used for each in wanted):
        raise ApiError("InvalidPrivateIpAddress.Duplicated", "Specified private IP address is duplicated.")
    return [str(each) for each in wanted]


def _place(order: InstanceOrder) -> tuple[str, str]:
    vswitch = order.vswitch
    if vswitch is None:
        if order.zone is None:
            raise missing("VSwitchId")
        vswitch = next((name for name, zone in VSWITCHES.items() if zone == order.zone), None)
        if vswitch is None:
            raise ApiError("InvalidZoneId.NotFound", "The specified zone does not exist.")
    if vswitch not in VSWITCHES:
        raise not_found("VSwitchId", vswitch)
    zone = VSWITCHES[vswitch]
    if order.zone is not None and order.zone != zone:
        raise ApiError("InvalidParameter.Mismatch", f"The vSwitch {vswitch} is not in {order.zone}.")
    return vswitch, zone


def new_system_disk(image: Image, instance: Instance, order: OrderedDisk) -> Disk:
    kind = sizes.Class.of(order.category or DEFAULT_CATEGORY, order.level, "SystemDisk")
    source = image.system
    least = source.size if source else 0
    size = order.size if order.size is not None else max(sizes.SYSTEM_DEFAULT, least)
    kind.check_system(size)
    if size < least:
        raise ApiError(
            "InvalidSystemDiskSize.LessThanImageSize", f"The system disk has {size} GiB, the image needs {least}."
        )
    disk = _disk(instance, kind, size, source.snapshot if source else "", order)
    disk.type = "system"
    disk.original_instance = instance.id
    disk.image = image.id
    disk.device = "/dev/xvda"
    return disk


def _data_disks(tx: Transaction, image: Image, instance: Instance, order: InstanceOrder) -> list[Disk]:
    """The image's data disks (an entry for the same device changes one) and the ordered ones."""
    ordered = {disk.device: disk for disk in order.data_disks if disk.device}
    if len(ordered) != sum(disk.device is not None for disk in order.data_disks):
        raise invalid("DataDisk.Device", "No two disks can have one device name.")
    disks = []
    for device in image.devices:
        if device.type == "data":
            disks.append(_image_disk(image, instance, device, ordered.pop(device.device, OrderedDisk())))
    used = {disk.device for disk in disks} | set(ordered)
    free = (name for letter in "bcdefghijklmnopqrstuvwxyz" if (name := f"/dev/xvd{letter}") not in used)
    more = [disk for disk in order.data_disks if disk.device is None or disk.device in ordered]
    if len(disks) + len(more) > DATA_DISKS:
        raise ApiError("InstanceDiskLimitExceeded", f"An instance has at most {DATA_DISKS} data disks.")
    return disks + [_ordered_disk(tx, instance, disk, disk.device or next(free)) for disk in more]


def _image_disk(image: Image, instance: Instance, device: ImageDevice, order: OrderedDisk) -> Disk:
    kind = sizes.Class.of(order.category or sizes.ESSD, order.level or "PL0", "DataDisk")
    size = order.size if order.size is not None else device.size
    sizes.check_snapshot(size, device.size)
    kind.check_data(size, "InvalidDataDiskSize.ValueNotSupported")
    disk = _disk(instance, kind, size, device.snapshot, order)
    disk.image = image.id
    disk.device = device.device
    return disk


def _ordered_disk(tx: Transaction, instance: Instance, order: OrderedDisk, device: str) -> Disk:
    kind = sizes.Class.of(order.category or DEFAULT_CATEGORY, order.level, "DataDisk")
    snapshot = ready_snapshot(tx, order.snapshot) if order.snapshot else None
    size = order.size if order.size is not None else snapshot.disk_size if snapshot else None
    if size is None:
        raise missing("DataDisk.Size")
    kind.check_data(size, "InvalidDataDiskSize.ValueNotSupported")
    if snapshot:
        sizes.check_snapshot(size, snapshot.disk_size)
    disk = _disk(instance, kind, size, snapshot.id if snapshot else "", order)
    disk.device = device
    return disk


def _disk(instance: Instance, kind: sizes.Class, size: int, snapshot: str, order: OrderedDisk) -> Disk:
    return Disk(
        id=new_id(Disk.prefix),
        created=time.time(),
        name=order.name,
        description=order.description,
        tags=instance.tags,
        zone=instance.zone,
        size=size,
        category=kind.category,
        performance_level=kind.level,
        source_snapshot=snapshot,
        instance=instance.id,
        delete_with_instance=order.delete_with_instance,
    )


def address(network: int, number: int) -> str:
    """The instance's own loopback address. Each cloud has a random network (1 to 65535), so several share a host."""
    third = (network + number // 250) % 256
    return f"127.{1 + (network >> 8) % 254}.{third}.{2 + number % 250}"


def mac(number: int) -> str:
    """Locally administered, from QEMU's own range."""
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in number.to_bytes(3, "big"))
