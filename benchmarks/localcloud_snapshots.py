"""What a snapshot costs in time and space, against a plain sparse copy of the same disk.

python -m benchmarks.localcloud_snapshots --folder /var/tmp --gib 8 --data 3 --changed 0.03

A disk of a running instance is changed and snapshot through the Python SDK, and a twin of it in the same folder is
changed and copied with `cp --sparse=always`; in turns. Both times end when the copy is durable.
"""

import argparse
import base64
import os
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alibabacloud_ecs20140526 import models
from alibabacloud_ecs20140526.client import Client
from alibabacloud_tea_openapi.models import Config

from wavelift.localcloud.model.context import Options
from wavelift.localcloud.server import LocalCloud

REGION, ZONE = "cn-local", "cn-local-a"
MIB, GIB = 1024**2, 1024**3
CHANGE = 64 * 1024
ROUNDS = 6  # the first has no snapshot before it, and is left out


class Sdk:
    def __init__(self, endpoint: str, secret: str) -> None:
        config = Config(
            access_key_id="BENCH",
            access_key_secret=secret,
            endpoint=endpoint,
            protocol="http",
            region_id=REGION,
            no_proxy="127.0.0.1",
            read_timeout=600_000,
        )
        self.client = Client(config)

    def wait(self, look: Callable[[], list[Any]], status: str) -> None:
        while [each.status for each in look()] != [status]:
            time.sleep(0.05)

    def disks(self) -> list[Any]:
        found = self.client.describe_disks(models.DescribeDisksRequest(region_id=REGION, disk_type="data"))
        return list(found.body.disks.disk)

    def instances(self) -> list[Any]:
        found = self.client.describe_instances(models.DescribeInstancesRequest(region_id=REGION))
        return list(found.body.instances.instance)

    def attached_disk(self, size: int) -> str:
        """Of a host instance that runs."""
        self.client.run_instances(
            models.RunInstancesRequest(
                region_id=REGION,
                image_id="host-linux",
                instance_type="ecs.c7.large",
                v_switch_id="vsw-local-a",
                security_group_id="sg-local-default",
                system_disk=models.RunInstancesRequestSystemDisk(
                    size="1", category="cloud_essd", performance_level="PL0"
                ),
                user_data=base64.b64encode(b"exec sleep 3600").decode(),
            )
        )
        self.wait(self.instances, "Running")
        order = models.CreateDiskRequest(
            region_id=REGION, zone_id=ZONE, size=size, disk_category="cloud_essd", performance_level="PL0"
        )
        disk = str(self.client.create_disk(order).body.disk_id)
        self.wait(self.disks, "Available")
        instance = self.instances()[0].instance_id
        self.client.attach_disk(models.AttachDiskRequest(disk_id=disk, instance_id=instance))
        self.wait(self.disks, "In_use")
        return disk

    def snapshot(self, disk: str) -> None:
        self.client.create_snapshot(models.CreateSnapshotRequest(disk_id=disk))


def fill(path: Path, size: int, data: int) -> None:
    """Evenly spread, in extents of 16 MiB."""
    pieces = data // (16 * MIB)
    with path.open("r+b" if path.exists() else "wb") as file:
        os.truncate(file.fileno(), size)
        for piece in range(pieces):
            os.pwrite(file.fileno(), os.urandom(16 * MIB), piece * (size // pieces) // MIB * MIB)
        os.fsync(file.fileno())


def change(path: Path, size: int, part: float, seed: int) -> None:
    """Somewhere, in blocks of 64 KiB."""
    places = random.Random(seed).sample(range(size // CHANGE), int(size * part) // CHANGE)
    with path.open("r+b") as file:
        for place in places:
            os.pwrite(file.fileno(), os.urandom(CHANGE), place * CHANGE)
        os.fsync(file.fileno())


def used(folder: Path) -> int:
    free = os.statvfs(folder)
    return (free.f_blocks - free.f_bfree) * free.f_frsize


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def plain_copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--sparse=always", str(source), str(target)], check=True)
    subprocess.run(["sync", str(target)], check=True)


def note_freezes(local: LocalCloud) -> list[float]:
    """How long the instance is held, each time."""
    hosts, held, began = local.cloud.snapshots._context.hosts, [], [0.0]
    freeze, thaw = hosts.freeze, hosts.thaw

    def frozen(instance: Any) -> None:
        began[0] = time.perf_counter()
        freeze(instance)

    def thawed(instance: Any) -> None:
        thaw(instance)
        held.append(time.perf_counter() - began[0])

    hosts.freeze, hosts.thaw = frozen, thawed  # type: ignore[method-assign]
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="on the file system to measure")
    parser.add_argument("--gib", type=int, default=8, help="size of the disk")
    parser.add_argument("--data", type=int, default=3, help="how many GiB of it hold data")
    parser.add_argument("--changed", type=float, default=0.03, help="part of the disk that changes between two copies")
    args = parser.parse_args()
    size, rows = args.gib * GIB, []
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=args.folder) as name:
        folder = Path(name)
        twin, copy = folder / "twin.raw", folder / "copy.raw"
        with LocalCloud(folder / "state", {"BENCH": "a secret"}, Options(host_instances=True, grace=1.0)) as local:
            sdk, held = Sdk(local.endpoint, "a secret"), note_freezes(local)
            disk_id = sdk.attached_disk(args.gib)
            disk = folder / "state" / "disks" / f"{disk_id}.raw"
            for path in (disk, twin):
                fill(path, size, args.data * GIB)
            for number in range(ROUNDS):
                before = used(disk.parent)
                change(disk, size, args.changed, number)
                grown = used(disk.parent) - before
                snapshot = timed(lambda: sdk.snapshot(disk_id))
                own = used(disk.parent) - before - grown
                change(twin, size, args.changed, number)
                plain = timed(lambda: plain_copy(twin, copy))
                rows.append((snapshot, held[-1], own, grown, plain, copy.stat().st_blocks * 512))
                copy.unlink()
    later = rows[1:]
    medians = [statistics.median(column) for column in zip(*later, strict=True)]
    print(f"{args.gib} GiB with {args.data} GiB of data, {args.changed:.0%} changed between copies; {len(later)} runs")
    print(f"{'':34}{'median':>10}{'least':>10}{'most':>10}")
    for about, unit, column in (
        ("snapshot, to the reply (ms)", 1e-3, 0),
        ("  of it the instance is held (ms)", 1e-3, 1),
        ("  space it takes (MiB)", MIB, 2),
        ("  space the next change takes (MiB)", MIB, 3),
        ("plain copy (ms)", 1e-3, 4),
        ("  space it takes (MiB)", MIB, 5),
    ):
        values = [row[column] / unit for row in later]
        print(f"{about:34}{medians[column] / unit:10.1f}{min(values):10.1f}{max(values):10.1f}")


if __name__ == "__main__":
    main()
