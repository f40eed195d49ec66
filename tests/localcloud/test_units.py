"""The parts that need no server."""

import os
import threading
import time
from pathlib import Path

import pytest

from wavelift.localcloud import disks
from wavelift.localcloud.disks import DiskFiles
from wavelift.localcloud.entities import SecurityGroup, new_id
from wavelift.localcloud.errors import ApiError
from wavelift.localcloud.locks import KeyedLocks, LockOrder
from wavelift.localcloud.model.orders import address, mac
from wavelift.localcloud.rpc.parameters import Parameters
from wavelift.localcloud.runtimes import processes
from wavelift.localcloud.runtimes.processes import Children
from wavelift.localcloud.states import (
    PASSAGES,
    REQUESTED,
    DiskStatus,
    IllegalMove,
    ImageStatus,
    InstanceStatus,
    Profile,
    check_move,
)
from wavelift.localcloud.store import Store, Token

MIB = 1024**2


def test_the_table_of_moves() -> None:
    check_move(DiskStatus.AVAILABLE, DiskStatus.ATTACHING)
    for before, after in [
        (DiskStatus.CREATING, DiskStatus.ATTACHING),
        (DiskStatus.IN_USE, DiskStatus.ATTACHING),
        (InstanceStatus.STOPPING, InstanceStatus.STARTING),
        (InstanceStatus.PENDING, InstanceStatus.STOPPING),
    ]:
        with pytest.raises(IllegalMove):
            check_move(before, after)
    # What a request begins ends by itself.
    assert all(after in PASSAGES for moves in REQUESTED.values() for after in moves)
    assert len({DiskStatus.CREATING, ImageStatus.CREATING} & set(PASSAGES)) == 2
    assert all(0 < p.seconds(Profile.FAST) < 1 <= p.seconds(Profile.REALISTIC) <= 60 for p in PASSAGES.values())


def sparse(path: Path) -> bytes:
    """8 MiB: data, a hole, data, a hole to the end."""
    with path.open("wb") as file:
        file.write(os.urandom(MIB))
        file.seek(4 * MIB)
        file.write(os.urandom(MIB))
        os.truncate(file.fileno(), 8 * MIB)
    return path.read_bytes()


def test_a_sparse_copy_keeps_content_and_holes(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    content = sparse(source)
    with source.open("rb") as origin, target.open("wb") as copy:
        disks._copy_sparse(origin.fileno(), copy.fileno())
    assert target.read_bytes() == content
    assert target.stat().st_blocks * 512 <= 2 * MIB + 64 * 1024


def test_made_grown_and_harmless_twice(tmp_path: Path) -> None:
    files = DiskFiles(tmp_path)
    content = sparse(tmp_path / "source")
    target = files.disk("d-1")
    files.create(target, 16 * MIB, tmp_path / "source")
    assert target.read_bytes() == content + bytes(8 * MIB)
    target.write_bytes(b"used by now")
    files.create(target, 16 * MIB, tmp_path / "source")
    assert target.read_bytes() == b"used by now"


def test_what_a_kill_left_is_cleared(tmp_path: Path) -> None:
    left = DiskFiles(tmp_path).disk("d-1").with_suffix(".partial")
    left.write_bytes(b"half")
    DiskFiles(tmp_path)
    assert not left.exists()


def test_sizes_beyond_the_filesystem(tmp_path: Path) -> None:
    files = DiskFiles(tmp_path)
    assert files.can_hold(1024**3) and not files.can_hold(2**63 - 1)
    assert list((tmp_path / "disks").iterdir()) == []


def test_addresses_are_apart_and_never_the_usual_ones() -> None:
    for network in (1, 255, 256, 65535):
        addresses = [address(network, number) for number in range(1, 2000)]
        assert len(set(addresses)) == len(addresses)
        for text in addresses:
            first, second, third, last = (int(part) for part in text.split("."))
            assert first == 127 and 1 <= second <= 254 and 0 <= third <= 255 and 2 <= last <= 254
    assert mac(258) == "52:54:00:00:01:02"


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    group = SecurityGroup(id=new_id("sg-"), created=time.time(), name="one")
    ran: list[str] = []
    with pytest.raises(RuntimeError), store.transaction() as tx:
        tx.put(group)
        tx.after_commit.append(lambda: ran.append("undone"))
        raise RuntimeError
    with store.transaction() as tx:
        assert tx.get(SecurityGroup, group.id) is None
        tx.put(group)
        tx.after_commit.append(lambda: ran.append("done"))
    store.close()
    store = Store(tmp_path / "state")
    with store.transaction() as tx:
        assert tx.all(SecurityGroup) == [group]
    store.close()
    assert ran == ["done"]


def test_what_follows_a_change_follows_though_something_else_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path / "state")
    ran: list[str] = []
    with store.transaction() as tx:
        tx.after_commit.append((tmp_path / "missing").unlink)
        tx.after_commit.append(lambda: ran.append("next"))
    store.close()
    assert ran == ["next"] and "FileNotFoundError" in caplog.text


def test_tokens(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    mismatch = ApiError("Mismatch", "other parameters")
    with store.transaction() as tx:
        tx.remember(Token("A", "t", "same", mismatch), "d-1")
        assert tx.recall(Token("A", "t", "same", mismatch)) == "d-1"
        assert tx.recall(Token("B", "t", "same", mismatch)) is None
        assert tx.recall(None) is None
        with pytest.raises(ApiError, match="Mismatch"):
            tx.recall(Token("A", "t", "other", mismatch))
    store.close()


def test_locks_by_name() -> None:
    locks = KeyedLocks()
    got = threading.Event()

    def take(name: str) -> threading.Thread:
        def run() -> None:
            with locks.hold(name):
                got.set()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    with locks.hold_all(["a", "b"]):
        waiting = take("a")
        assert not got.wait(0.1)
        other = take("c")
        assert got.wait(5)
    waiting.join(5)
    other.join(5)
    assert not waiting.is_alive() and locks._locks == {}


def test_locks_are_held_in_one_order() -> None:
    locks = KeyedLocks()
    refused = pytest.raises(LockOrder, match="'ab' is asked for while")
    with locks.hold_all(["b", "a"]), locks.hold("a"), locks.hold("c"), refused, locks.hold("ab"):
        raise AssertionError
    with locks.hold("ab"):
        assert list(locks._locks) == ["ab"]


def test_a_transaction_inside_a_transaction_is_an_error(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    with store.transaction(), pytest.raises(RuntimeError, match="wait for itself"), store.transaction():
        raise AssertionError
    with store.transaction() as tx:
        tx.keep("still", "works")
    store.close()


def test_what_is_looked_at_follows_every_change(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    one, two = (SecurityGroup(id=new_id("sg-"), created=time.time(), name=name) for name in ("one", "two"))
    with store.transaction() as tx:
        assert tx.look(SecurityGroup) == []
        tx.put(one)
        tx.put(two)
        one.name = "changed, but not put"
        assert [group.name for group in tx.look(SecurityGroup)] == ["one", "two"]
    with pytest.raises(RuntimeError), store.transaction() as tx:
        mine = tx.get(SecurityGroup, one.id)
        assert mine is not None
        mine.name = "undone"
        tx.put(mine)
        tx.remove(two)
        assert [group.name for group in tx.look(SecurityGroup)] == ["undone"]
        raise RuntimeError
    with store.transaction() as tx:
        assert [group.name for group in tx.look(SecurityGroup)] == ["one", "two"]
        tx.remove(one)
        tx.put(one)
        assert tx.look(SecurityGroup) == tx.all(SecurityGroup) == [two, one]
    store.close()


def test_a_token_of_what_was_undone_begins_anew(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    token = Token("A", "t", "same", ApiError("Mismatch", "other parameters"))
    with store.transaction() as tx:
        tx.remember(token, "d-1")
        tx.forget("d-1")
        assert tx.recall(token) is None
    store.close()


def test_what_no_record_owns_is_swept_and_a_size_put_right(tmp_path: Path) -> None:
    files = DiskFiles(tmp_path)
    for name in ("d-kept", "d-orphan"):
        files.create(files.disk(name), MIB)
    for name in ("s-kept", "s-orphan"):
        files.create(files.snapshot(name), MIB)
    files.sweep({"d-kept": 2 * MIB, "d-not-made-yet": MIB}, {"s-kept"})
    left = {path.name: path.stat().st_size for path in tmp_path.glob("*/*")}
    assert left == {"d-kept.raw": 2 * MIB, "s-kept.raw": MIB}


def test_a_process_that_becomes_another_program_is_never_overlooked(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('#!/bin/sh\nexec "$0"\n')
    script.chmod(0o700)
    children = Children(tmp_path)
    pid, _ = children.spawn([str(script)], tmp_path, {processes.MARK: "i-restless"}, tmp_path / "log")
    try:
        assert all(processes.marked("i-restless") == [pid] for _ in range(50))
    finally:
        processes.end("i-restless", 0)
        os.waitpid(pid, 0)
    assert processes.instances_of(tmp_path) == set()


def test_parameters() -> None:
    p = Parameters(
        {
            "Id.10": "b",
            "Id.2": "a",
            "Tag.1.Key": "k",
            "DataDisk.2.Size": "x",
            "DataDisk.1.Size": "5",
            "SystemDisk.Size": "40",
            "Yes": "True",
            "Empty": "",
        }
    )
    assert p.repeated("Id") == ["a", "b"]
    assert p.tags() == {"k": ""} and p.wanted_tags() == {"k": None}
    assert p.structure("SystemDisk").integer("Size") == 40
    assert p.flag("Yes") and not p.flag("No") and p.text("Empty") is None
    first, second = p.structures("DataDisk")
    assert first.integer("Size") == 5
    with pytest.raises(ApiError, match=r"DataDisk\.2\.Size"):
        second.integer("Size")
