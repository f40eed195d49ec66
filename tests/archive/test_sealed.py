"""A sealed store: the contract of all stores, in whatever parts it is read, and what is changed in it is found."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavelift.archive.sealed import SealedStore
from wavelift.blocks.crypto import KeyEncryptionKey
from wavelift.blocks.pack_layout import FRAME, SEALED_HEAD
from wavelift.stores.base import Corrupted, Denied
from wavelift.stores.memory import MemoryStore

KEY = KeyEncryptionKey(bytes(range(32)))
DATA = random.Random(3).randbytes(12 * FRAME + 77)


def sealed(data: bytes = DATA) -> tuple[SealedStore, MemoryStore]:
    bare = MemoryStore()
    store = SealedStore(bare, KEY)
    store.put("a/b", data)
    return store, bare


@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from([0, 1, FRAME - 1, FRAME, FRAME + 1, 5 * FRAME, len(DATA)]),
    reads=st.lists(st.tuples(st.integers(0, len(DATA) + 9), st.none() | st.integers(0, len(DATA) + 9)), max_size=9),
)
def test_every_part_is_what_was_put(size: int, reads: list[tuple[int, int | None]]) -> None:
    data = DATA[:size]
    _, bare = sealed(data)
    store = SealedStore(bare, KEY)
    assert store.get("a/b") == data and store.size("a/b") == size == next(store.list("")).size
    for start, length in reads:
        assert store.get("a/b", start, length) == (data[start:] if length is None else data[start : start + length])


def test_nothing_of_it_shows() -> None:
    _, bare = sealed(b"secret words " * 9999)
    assert b"secret" not in bare.get("a/b")


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, len(DATA)), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_by_who_reads_it(at: int, bit: int) -> None:
    _, bare = sealed()
    raw = bytearray(bare.get("a/b"))
    raw[at] ^= 1 << bit
    bare.put("a/b", raw)
    with pytest.raises((Corrupted, Denied)):
        SealedStore(bare, KEY).get("a/b")


CHANGES: list[Callable[[bytearray], object]] = [
    lambda raw: raw.__delitem__(slice(len(raw) - 1, None)),
    lambda raw: raw.__delitem__(slice(SEALED_HEAD + 3 * (FRAME + 20), None)),
    lambda raw: raw.extend(b"x"),
    lambda raw: raw.clear(),
    lambda raw: raw.__setitem__(slice(0, 8), b"PLAINTXT"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_cut_or_put_in_its_place_is_found(change: Callable[[bytearray], object]) -> None:
    _, bare = sealed()
    raw = bytearray(bare.get("a/b"))
    change(raw)
    bare.put("a/b", raw)
    with pytest.raises(Corrupted, match="a/b"):
        SealedStore(bare, KEY).get("a/b")


def test_frames_of_another_object_are_found() -> None:
    store, bare = sealed()
    first = bare.get("a/b")
    store.put("a/b", DATA)
    second = bare.get("a/b")
    assert len(first) == len(second) and first != second
    bare.put("a/b", first[: SEALED_HEAD + FRAME + 20] + second[SEALED_HEAD + FRAME + 20 :])
    with pytest.raises(Corrupted):
        SealedStore(bare, KEY).get("a/b")


def test_a_part_of_what_was_replaced_meanwhile_is_read_anew() -> None:
    """The same content under another head, as when a table of digests is put again."""
    store, bare = sealed()
    reader = SealedStore(bare, KEY)
    assert reader.get("a/b", 9 * FRAME, 10) == DATA[9 * FRAME : 9 * FRAME + 10]
    store.put("a/b", DATA)
    assert reader.get("a/b", 8 * FRAME, 10) == DATA[8 * FRAME : 8 * FRAME + 10]


def test_another_key_opens_nothing() -> None:
    _, bare = sealed()
    with pytest.raises(Denied, match="not here"):
        SealedStore(bare, KeyEncryptionKey(bytes(32))).get("a/b")
