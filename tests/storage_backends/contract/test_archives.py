"""What backends that keep archives promise beyond that: what is lent, what is sealed, what is damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage_backends.archives import backend as archives
from storage_backends.base import Kind, Labels, Resource, Role, State
from storage_backends.errors import Conflict, Corrupted, Denied, InvalidRequest, NotFound
from tests.archive.filling import MemoryTarget, add
from tests.storage_backends.conftest import SMALL
from tests.storage_backends.contract.conftest import SIZE, Peer, content, descriptor_of, fill
from tests.storage_backends.contract.test_contract import clone, delete_all, filled, snapshot, volume
from wavelift.archive.errors import KeyMissing
from wavelift.archive.opening import open_archive, store_of
from wavelift.archive.sweep import sweep
from wavelift.archive.verify import verify
from wavelift.hydrate.hydrate import hydrate
from wavelift.hydrate.journal import Subject, Work
from wavelift.stores import base as stores

Run = Callable[..., Labels]


def flip(peer: Peer, key: str) -> None:
    store = peer.store()
    data = bytearray(store.get(key))
    data[len(data) // 2] ^= 0x55
    store.put(key, data)


def drop(peer: Peer, key: str) -> None:
    peer.store().delete([key])


def keys(peer: Peer, start: str) -> list[str]:
    return [entry.key for entry in peer.store().list(start)]


def test_a_source_gives_back_what_its_sink_got(place: Peer, run: Run) -> None:
    first = filled(place, run)
    held = snapshot(place, run, first)
    place.fill(first.id, 2)
    for generation, resource in ((1, held.id), (2, first.id)):
        archive = open_archive(place.backend.source(resource))
        verdict = verify(archive, generation)
        assert verdict.restorable and verdict.generation.generation == generation
        found = archive.map(archive.load(generation))
        assert found.size == SIZE
    delete_all(place, run())


def test_a_clone_is_read_where_its_snapshot_lies_until_it_has_its_own(place: Peer, run: Run) -> None:
    first = filled(place, run)
    held = snapshot(place, run, first)
    copied = clone(place, run, held)
    backend = place.backend
    assert backend.source(copied.id).prefix == backend.source(held.id).prefix == backend.source(first.id).prefix
    root = open_archive(backend.source(copied.id)).load(1).root
    own = open_archive(backend.sink(copied.id, run(), 2))
    assert own.about.origin is not None
    assert (own.about.origin.prefix, own.about.origin.generation) == (f"volumes/{first.id}", 1)
    base = open_archive(backend.source(copied.id)).load(1)
    blocks = content(2)
    made = add(own, 2, SIZE, blocks, [blocks], base=base)
    assert made.base_root == root
    assert backend.source(copied.id).prefix.endswith(copied.id)
    assert verify(open_archive(backend.source(copied.id)), 2).elsewhere == (1, root)
    delete_all(place, run())
    assert place.left(run()) == []


def test_what_something_rests_on_stays(place: Peer, run: Run) -> None:
    first = filled(place, run)
    held = snapshot(place, run, first)
    copied = clone(place, run, held)
    backend = place.backend
    with pytest.raises(Conflict, match=f"Volume {first.id} is needed by {held.id}"):
        backend.delete(first)
    with pytest.raises(Conflict, match=f"Snapshot {held.id} is needed by {copied.id}"):
        backend.delete(held)
    assert {each.state for each in backend.list(run())} == {State.READY} and len(backend.list(run())) == 3
    delete_all(place, run())
    assert place.left(run()) == []


def test_a_snapshot_is_of_a_generation_that_is_whole(place: Peer, run: Run) -> None:
    first = volume(place, run)
    backend = place.backend
    archive = open_archive(backend.sink(first.id, run(), 1))
    with pytest.raises(NotFound, match="has no generation 1"):
        backend.snapshot(first.id, run(Role.REPLICA, "data", 1))
    fill(backend, first.id)
    with pytest.raises(NotFound, match="has no generation 2; it has: 1"):
        backend.snapshot(first.id, run(Role.REPLICA, "data", 2))
    held = snapshot(place, run, first)
    assert held.id == f"{first.id}.1" and archive.load(1).generation == 1
    with pytest.raises(InvalidRequest, match="need a generation"):
        backend.snapshot(first.id, run(Role.REPLICA, "data"))
    with pytest.raises(InvalidRequest, match="the volume's wave, migration and run"):
        backend.snapshot(first.id, Labels("wave", "web", "another", Role.REPLICA, "data", 1))
    with pytest.raises(Conflict, match=f"{held.id} is there as"):
        backend.snapshot(first.id, run(Role.PREPARED, "data", 1))
    delete_all(place, run())


def test_damage_is_named_never_taken_for_absence(place: Peer, run: Run) -> None:
    first = filled(place, run)
    held = snapshot(place, run, first)
    backend = place.backend
    (pack,) = keys(place, f"volumes/{first.id}/packs/1/")
    flip(place, pack)
    verdict = verify(open_archive(backend.source(held.id)), 1)
    assert not verdict.restorable and [flaw.key for flaw in verdict.flaws] == [
        pack.removeprefix(f"volumes/{first.id}/")
    ]
    place.store().delete([f"index/snapshots/{held.id}"])
    flip(place, f"volumes/{first.id}/generations/1")
    with pytest.raises(Corrupted) as caught:
        backend.snapshot(first.id, run(Role.REPLICA, "data", 1))
    assert caught.value.remedy and caught.value.code == "corrupted" and not caught.value.retryable
    store = place.store()
    record = store.get(f"index/volumes/{first.id}")
    store.put(f"index/volumes/{first.id}", b"{" + record)
    for ask in (
        lambda: backend.get(Kind.VOLUME, first.id),
        lambda: backend.list(run()),
        lambda: backend.sink(first.id, run(), 2),
        lambda: backend.delete(first),
        lambda: volume(place, run),
    ):
        with pytest.raises(Corrupted, match=f"index/volumes/{first.id} of .* is damaged"):
            ask()
    store.put(f"index/volumes/{first.id}", record)
    backend.delete(first)
    assert place.left(run()) == []


def test_a_damaged_archive_can_be_deleted(memory: Peer, run: Run) -> None:
    place = memory
    for number, key in enumerate(("maps/2.map", "generations/1.packs", "generations/2", "archive.json")):
        first = filled(place, run, f"data{number}")
        held = snapshot(place, run, first)
        place.fill(first.id, 2)
        (flip if number == 2 else drop)(place, f"volumes/{first.id}/{key}")
        place.backend.delete(held)
        place.backend.delete(first)
        assert place.left(run()) == []


def test_each_archive_has_a_key_of_its_own(place: Peer, run: Run) -> None:
    one, other = filled(place, run), filled(place, run, "system")
    backend = place.backend
    lent = [backend.source(each.id) for each in (one, other)]
    assert len({each.key for each in lent} | {"", place.connection["extra"]["master_secret"]}) == 4
    assert all(each.key not in repr(each) for each in lent)
    with pytest.raises(KeyMissing):
        open_archive(lent[0].model_copy(update={"key": lent[1].key}))
    # Nothing of a disk lies there as it is.
    whole = b"".join(place.store().get(key) for key in place.left(run()))
    assert content(1)[0][:64] not in whole
    with pytest.raises(Denied, match="is sealed with the key"):
        place.open(master_secret="ab" * 32).sink(one.id, run(), 1)
    delete_all(place, run())


def test_plain_archives_are_asked_for(memory: Peer, run: Run) -> None:
    with pytest.raises(InvalidRequest, match="has no master key"):
        memory.open(master_secret="")
    with pytest.raises(InvalidRequest, match="beside a master key"):
        memory.open(plain=True)
    with pytest.raises(InvalidRequest, match="master_secret") as caught:
        memory.open(master_secret="much too short")
    assert "much too short" not in str(caught.value)
    plain = memory.open(master_secret="", plain="true")
    made = plain.create_volume(run(Role.REPLICA, "data"), SMALL)
    fill(plain, made.id)
    assert plain.sink(made.id, run(), 1).key == ""
    assert content(1)[0][:64] in b"".join(memory.store().get(key) for key in keys(memory, f"volumes/{made.id}/packs/"))


def test_deleting_a_snapshot_frees_what_only_it_needed(memory: Peer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old enough are things after a week: here at once."""
    monkeypatch.setattr(archives, "sweep", lambda archive, keep: sweep(archive, keep, grace_seconds=-1.0))
    first = filled(memory, run)
    backend = memory.open()
    one = snapshot(memory, run, first)
    # A generation that builds on no other.
    blocks = content(2)
    add(open_archive(backend.sink(first.id, run(), 2)), 2, SIZE, blocks, [blocks])
    two = snapshot(memory, run, first, 2)
    assert keys(memory, f"volumes/{first.id}/packs/1/")
    backend.delete(one)
    assert not keys(memory, f"volumes/{first.id}/packs/1/")
    assert verify(open_archive(backend.source(two.id)), 2).restorable
    delete_all(memory, run())
    assert memory.left(run()) == []


def test_a_session_opens_one_archive_and_deletes_no_more_than_its_locks(oss: Peer, run: Run) -> None:
    one, other = filled(oss, run), filled(oss, run, "system")
    sink, source = descriptor_of(oss, one.id), oss.backend.source(one.id)
    assert sink.token and source.token and sink.access_key_secret != oss.connection["password"]
    writes, reads = store_of(lambda: sink), store_of(lambda: source)
    key = next(entry.key for entry in reads.list("packs/"))
    assert writes.get(key) == reads.get(key)
    writes.put("packs/1/more", b"")
    foreign = oss.backend.source(other.id)
    beside = store_of(lambda: sink.model_copy(update={"prefix": foreign.prefix}))
    above = store_of(lambda: source.model_copy(update={"prefix": sink.prefix.rpartition("/")[0]}))
    writes.put("locks/commit-1", b"")
    oss.store().put(f"volumes/{other.id}/locks/commit-1", b"")
    refused: list[Callable[[], Any]] = [
        lambda: writes.delete([key]),
        lambda: writes.delete(["locks/commit-1", key]),
        lambda: writes.delete(["archive.json"]),
        lambda: writes.delete(["generations/1", "generations/1.packs"]),
        lambda: reads.delete(["locks/commit-1"]),
        lambda: beside.delete(["locks/commit-1"]),
        lambda: reads.put(key, b""),
        lambda: beside.get("archive.json"),
        lambda: beside.put("archive.json", b""),
        lambda: list(beside.list("")),
        lambda: list(above.list("")),
        lambda: above.get(f"{other.id}/archive.json"),
    ]
    for ask in refused:
        with pytest.raises(stores.Denied):
            ask()
    assert all(keys(oss, f"volumes/{each.id}/locks/commit-1") for each in (one, other))
    writes.delete(["locks/commit-1"])
    assert keys(oss, f"volumes/{one.id}/locks/") == []
    delete_all(oss, run())
    assert oss.left(run()) == []


def test_generations_leave_no_locks(place: Peer, run: Run) -> None:
    """By what an agent is given, which is not what the backend has."""
    first = filled(place, run)
    for generation in (2, 3):
        place.fill(first.id, generation)
    assert keys(place, f"volumes/{first.id}/locks/") == []
    delete_all(place, run())


def test_an_own_key_is_lent_only_where_that_is_allowed(oss: Peer, run: Run) -> None:
    with pytest.raises(InvalidRequest, match="has no role_arn, so that agents would get its own key"):
        oss.open(role_arn="")
    backend = oss.open(role_arn="", allow_static_keys=True)
    made = backend.create_volume(run(Role.REPLICA, "data"), SMALL)
    assert backend.sink(made.id, run(), 1).access_key_secret == oss.connection["password"]
    backend.delete(made)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"role_arn": "role"}, "role_arn"),
        ({"service": "gcs"}, "service"),
        ({"endpoint": "ftp://x"}, "endpoint"),
        ({"sts_endpoint": ""}, "sts_endpoint"),
        ({"bucket": ""}, "bucket"),
        ({"region": ""}, "region"),
        ({"prefix": "a//b"}, "prefix"),
        ({"prefix": "../b"}, "prefix"),
        ({"path_style": "perhaps"}, "path_style"),
        ({"allow_static_keys": "perhaps"}, "allow_static_keys"),
        ({"ca_file": "/nowhere"}, "ca_file"),
    ],
)
def test_a_wrong_field_is_named(oss: Peer, change: dict[str, str], named: str) -> None:
    if named == "allow_static_keys":
        change = {"role_arn": "", **change}
    with pytest.raises(InvalidRequest, match=named) as caught:
        oss.open(**change)
    assert oss.connection["connection_id"] in caught.value.message and caught.value.remedy


@pytest.mark.parametrize("change", [{"bucket": "no-such-bucket"}, {"password": "wrong"}])
def test_access_that_is_not_there_is_found(oss: Peer, change: dict[str, str]) -> None:
    other = Peer("oss", {**oss.connection, **{name: value for name, value in change.items() if name == "password"}})
    with pytest.raises(Denied):
        other.open(**{name: value for name, value in change.items() if name == "bucket"}).check_access()
    assert oss.left(Labels("", "", "")) == []


def test_memory_is_of_one_name_and_gone_when_it_is_closed(memory: Peer, run: Run) -> None:
    made = volume(memory, run)
    backend = memory.open()
    assert [each.id for each in memory.open().list(run())] == [made.id]
    other = Peer("memory", {**memory.connection, "connection_id": "another"})
    assert other.open().list(run()) == []
    other.close()
    backend.close()
    with pytest.raises(NotFound):
        memory.open().get(Kind.VOLUME, made.id)


def test_what_is_read_from_a_source_is_the_disk(place: Peer, run: Run, tmp_path: Path) -> None:
    """Through the very code that a gateway hydrates with."""
    first = filled(place, run)
    place.fill(first.id, 2)
    held = snapshot(place, run, first, 2)
    archive = open_archive(place.backend.source(held.id))
    chain = list(archive.chain(2))
    wanted = archive.map(chain[0])
    target = MemoryTarget()
    subject = Subject(archive.id, chain[0].root, None, "mark")
    work = Work.begin(tmp_path / "work", subject, wanted, None, True, lambda: None)
    found = hydrate(archive, chain, work, target)
    work.close()
    assert not found.missing and target.blocks == content(2)
    delete_all(place, run())


def test_resources_of_other_kinds_are_none_of_its_business(memory: Peer, run: Run) -> None:
    backend = memory.open()
    backend.delete(Resource(Kind.IMAGE, "m-1", State.READY, ""))
    with pytest.raises(NotFound):
        backend.get(Kind.IMAGE, "../m-1")
