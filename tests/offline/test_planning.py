"""What goes on which disk, told beforehand, and what then happens."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.stores.disks import AS_ROOT, MIB, disk
from wavelift.offline.planning import plan
from wavelift.stores.offline import OfflineStore

pytestmark = pytest.mark.skipif(not AS_ROOT, reason="loop devices take root")


@pytest.mark.parametrize("packs", [3, 14, 30])
def test_what_is_planned_is_what_happens(tmp_path: Path, packs: int) -> None:
    with ExitStack() as stack:
        folders = [stack.enter_context(disk(tmp_path, name, 16 * MIB)) for name in ("a", "b")]
        store = OfflineStore.create(folders)
        planned = plan(packs * MIB, store.disks, largest=MIB)
        assert sum(share.takes for share in planned.shares) + planned.lacking == packs * MIB
        assert (planned.lacking > 0) == (packs == 30) and (planned.shares[1].takes > 0) == (packs > 3)
        if planned.lacking:
            return
        for number in range(packs):
            store.put(f"packs/1/{number}", os.urandom(MIB))
        for share, each in zip(planned.shares, store.disks, strict=True):
            there = sum(entry.size for entry in each.store.list(""))
            # A pack more may fit than was counted on.
            assert abs(there - share.takes) <= MIB


def test_what_goes_on_each_disk_takes_room_too(tmp_path: Path) -> None:
    with disk(tmp_path, "a", 16 * MIB) as folder:
        store = OfflineStore.create([folder])
        room = store.disks[0].room
        assert plan(room - MIB, store.disks, largest=MIB).lacking == 0
        assert plan(room - MIB, store.disks, largest=MIB, on_each=3 * MIB).lacking > 0
        assert plan(0, store.disks, on_each=20 * MIB).lacking > 0
