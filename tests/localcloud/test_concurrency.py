"""Several clients at once, each through a whole round of disks and snapshots."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

CLIENTS = 4


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
