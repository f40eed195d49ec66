"""What every store promises, of each of them."""

from __future__ import annotations

import os
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wavelift.stores.base import AlreadyThere, NotThere, Store
from wavelift.stores.directory import STEP

PARTS = st.text("abcXYZ019", min_size=1, max_size=4)
KEYS = st.lists(PARTS, min_size=2, max_size=2).map("/".join)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 70_001, STEP + 17])
def test_what_was_put_is_got_whole_and_in_part(store: Store, size: int) -> None:
    data = os.urandom(size)
    store.put("packs/1/a", memoryview(data))
    assert store.get("packs/1/a") == data and store.size("packs/1/a") == size
    assert store.get("packs/1/a", 10, 20) == data[10:30]
    assert store.get("packs/1/a", size // 2) == data[size // 2 :]
    assert store.get("packs/1/a", size, 5) == b""
    assert store.get("packs/1/a", 0, size + 5) == data
    assert store.get("packs/1/a", size // 2, size) == data[size // 2 :]


def test_a_second_put_replaces_and_a_new_one_does_not(store: Store) -> None:
    store.put("a/b", b"long before")
    store.put("a/b", b"after")
    with pytest.raises(AlreadyThere):
        store.put("a/b", b"new", new=True)
    assert store.get("a/b") == b"after" and [entry.key for entry in store.list("")] == ["a/b"]
    store.put("a/c", b"new", new=True)
    assert store.get("a/c") == b"new"


def test_what_is_not_there_is_said_so(store: Store) -> None:
    for ask in (store.get, store.size):
        with pytest.raises(NotThere) as caught:
            ask("no/such")
        assert caught.value.key == "no/such" and caught.value.code == "not_there" and not caught.value.retryable
    store.delete(["no/such"])
    assert list(store.list("no/")) == []


def test_lists_are_in_order_and_tell_size_and_time(store: Store) -> None:
    began = time.time() - 5
    for key in ("b/2", "a/10", "a/9", "ab/1", "b/1"):
        store.put(key, key.encode())
    found = list(store.list("a/"))
    assert [(entry.key, entry.size) for entry in found] == [("a/10", 4), ("a/9", 3)]
    assert all(began < entry.put_at < time.time() + 5 for entry in found)
    assert [entry.key for entry in store.list("a")] == ["a/10", "a/9", "ab/1"]
    store.delete(["a/9", "b/1", "a/9"])
    assert [entry.key for entry in store.list("")] == ["a/10", "ab/1", "b/2"]


def test_of_many_that_make_the_same_thing_one_does(store: Store) -> None:
    made, refused = [], []
    gate = threading.Barrier(8)

    def make(number: int) -> None:
        gate.wait()
        try:
            store.put("lock/one", b"%d" % number, new=True)
        except AlreadyThere:
            refused.append(number)
        else:
            made.append(number)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and len(refused) == 7 and store.get("lock/one") == b"%d" % made[0]


def test_no_reader_ever_sees_half_of_an_object(store: Store) -> None:
    contents = [bytes([number]) * (300_000 + number) for number in range(1, 9)]
    store.put("a/x", contents[0])
    seen, done = set(), threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(store.get("a/x"))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for content in contents * 5:
            store.put("a/x", content)
    finally:
        done.set()
        reader.join()
    assert seen <= set(contents)


def test_what_is_deleted_while_it_is_listed_is_there_or_not(store: Store) -> None:
    store.put("stays/1", b"x")
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            store.put("goes/1", b"y")
            store.delete(["goes/1"])

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        for _ in range(100):
            keys = [entry.key for entry in store.list("")]
            assert keys in (["stays/1"], ["goes/1", "stays/1"])
    finally:
        done.set()
        other.join()


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../b", ".a", "a/.new-x", "a b", "a\n", "ä", "a" * 900]
)
def test_a_key_that_some_store_cannot_hold_is_refused_by_all(store: Store, key: str) -> None:
    for ask in (store.get, store.size, lambda key: store.put(key, b""), lambda key: store.delete([key])):
        with pytest.raises(ValueError, match="is no key"):
            ask(key)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["put", "new", "delete"]), KEYS, st.binary(max_size=40)), max_size=25))
def test_it_behaves_as_a_dictionary(store: Store, steps: list[tuple[str, str, bytes]]) -> None:
    store.delete([entry.key for entry in store.list("")])
    model: dict[str, bytes] = {}
    for what, key, data in steps:
        if what == "delete":
            store.delete([key])
            model.pop(key, None)
        elif what == "new" and key in model:
            with pytest.raises(AlreadyThere):
                store.put(key, data, new=True)
        else:
            store.put(key, data, new=what == "new")
            model[key] = data
    assert {entry.key: store.get(entry.key) for entry in store.list("")} == model
