"""Several clients at once: each through a whole round of its own, and all of them on the same few things."""

import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from alibabacloud_tea_openapi.exceptions import ClientException

CLIENTS = 4
THREADS = 16
REQUESTS = 25
LIMIT = 60


def test_clients_do_not_disturb_each_other(ecs: Any) -> None:
    def work(number: int) -> list[str]:
        mine = type(ecs)(ecs.endpoint)
        host = mine.run_host(tags={"round": str(number)})
        disk_id = mine.new_disk(tags={"round": str(number)})
        mine.attach(disk_id, host)
        snapshot_id = mine.new_snapshot(disk_id, tags={"round": str(number)})
        clone = mine.new_disk(snapshot_id=snapshot_id)
        mine.detach(disk_id, host)
        mine.release(host)
        for each in (disk_id, clone):
            mine.call("delete_disk", disk_id=each)
        mine.call("delete_snapshot", snapshot_id=snapshot_id)
        return [host, disk_id, snapshot_id, clone]

    with ThreadPoolExecutor(CLIENTS) as pool:
        made = [name for names in pool.map(work, range(CLIENTS)) for name in names]
    assert len(set(made)) == 4 * CLIENTS
    for action in ("describe_disks", "describe_snapshots", "describe_instances"):
        assert ecs.call(action)["TotalCount"] == 0, action


def test_everybody_wants_the_same_few_disks(ecs: Any) -> None:
    """Requests are carried out or refused for a reason; none waits for ever, and none happens by halves."""
    hosts = [ecs.run_host() for _ in range(2)]
    disks = [ecs.new_disk() for _ in range(3)]
    for disk in disks:
        ecs.attach(disk, hosts[0])

    def work(number: int) -> Counter[str]:
        mine, chance, seen = type(ecs)(ecs.endpoint), random.Random(number), Counter[str]()
        requests = [
            lambda disk, host: mine.call("attach_disk", disk_id=disk, instance_id=host),
            lambda disk, host: mine.call("detach_disk", disk_id=disk, instance_id=host),
            lambda disk, host: mine.call("create_snapshot", disk_id=disk),
            lambda disk, host: mine.call("resize_disk", disk_id=disk, new_size=chance.randint(2, 5)),
            lambda disk, host: mine.call("reboot_instance", instance_id=host, force_stop=True),
            lambda disk, host: mine.call("describe_disks", disk_ids=json.dumps([disk])),
            lambda disk, host: mine.call("describe_snapshots", disk_id=disk),
        ]
        for _ in range(REQUESTS):
            try:
                chance.choice(requests)(chance.choice(disks), chance.choice(hosts))
                seen["carried out"] += 1
            except ClientException as error:
                seen[str(error.code)] += 1
        return seen

    with ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(work, number) for number in range(THREADS)]
        seen = sum((future.result(LIMIT) for future in futures), Counter[str]())
    assert seen["carried out"] > THREADS and seen["IncorrectDiskStatus"] > 0
    for host in hosts:
        ecs.wait(ecs.instance, host, "Running")
    for name in disks:
        ecs.wait(lambda name: {"Status": str(ecs.disk(name)["Status"] in {"In_use", "Available"})}, name, "True")
    found = {name: ecs.disk(name) for name in disks}
    assert all((disk["Status"] == "In_use") == bool(disk["InstanceId"]) for disk in found.values())
    places = [(disk["InstanceId"], disk["Device"]) for disk in found.values() if disk["InstanceId"]]
    assert len(set(places)) == len(places)
    for host in hosts:
        ecs.release(host)
    for name in disks:
        for snapshot in ecs.call("describe_snapshots", disk_id=name, page_size=100)["Snapshots"]["Snapshot"]:
            ecs.wait(ecs.snapshot, snapshot["SnapshotId"], "accomplished")
            ecs.call("delete_snapshot", snapshot_id=snapshot["SnapshotId"])
        ecs.call("delete_disk", disk_id=name)
