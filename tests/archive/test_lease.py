"""Leases: one at a time, whoever asks, and none for who has ended."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from wavelift.archive.lease import Busy, Lease, held
from wavelift.stores.base import Denied
from wavelift.stores.directory import DirectoryStore
from wavelift.stores.memory import MemoryStore


def test_one_at_a_time_and_of_each_kind() -> None:
    store = MemoryStore()
    with held(store, "copy", against=("copy",)):
        with pytest.raises(Busy, match="copy"), held(store, "copy", against=("copy",)):
            raise AssertionError("two hold it")
        with held(store, "sweep", against=("sweep", "commit")):
            pass
    with held(store, "copy", against=("copy",)):
        pass
    assert list(store.list("")) == []


def test_of_many_that_come_at_once_never_two_go_on() -> None:
    store, inside, most = MemoryStore(), [0], [0]
    gate = threading.Barrier(8)

    def come() -> None:
        gate.wait()
        for _ in range(5):
            try:
                with held(store, "copy", against=("copy",)):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    inside[0] -= 1
            except Busy:
                continue

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] <= 1 and list(store.list("")) == []


def test_who_was_killed_here_holds_nothing(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from wavelift.archive.lease import held\n"
        "from wavelift.stores.directory import DirectoryStore\n"
        "with held(DirectoryStore(Path(sys.argv[1])), 'copy'): print('held', flush=True); time.sleep(600)"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"held\n"
    store = DirectoryStore(tmp_path)
    with pytest.raises(Busy, match=f"process {child.pid} on "), held(store, "copy", against=("copy",)):
        raise AssertionError("two hold it")
    child.kill()
    child.wait()
    child.stdout.close()
    assert len(list(store.list("locks/"))) == 1
    with held(store, "copy", against=("copy",)):
        pass


def test_one_of_another_machine_counts_until_its_time_is_up() -> None:
    store = MemoryStore()
    other = Lease(store, "copy")
    other.say()
    (entry,) = store.list("locks/")
    there = store.get(entry.key).replace(b'"within": "', b'"within": "elsewhere')
    store.put(entry.key, there)
    with pytest.raises(Busy), held(store, "copy", against=("copy",)):
        raise AssertionError("two hold it")
    store.put(entry.key, there.replace(b'"seconds": 300', b'"seconds": 0'))
    with held(store, "copy", against=("copy",)):
        pass
    store.put(entry.key, b"what nobody can read")
    with pytest.raises(Busy, match="unknown"), held(store, "copy", against=("copy",)):
        raise AssertionError("two hold it")


class Keeping(MemoryStore):
    def delete(self, keys: object) -> None:
        raise Denied("No right to delete.", "Ask for it.")


def test_who_may_not_delete_lets_go_all_the_same() -> None:
    store = Keeping()
    for _ in range(2):
        with held(store, "copy", against=("copy",)):
            pass
    assert len(list(store.list("locks/"))) == 2
