"""The model alone: no HTTP."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from wavelift.localcloud.oss.errors import OssError
from wavelift.localcloud.oss.model.blobs import Staged
from wavelift.localcloud.oss.model.objects import Check
from wavelift.localcloud.oss.model.store import ObjectStore
from wavelift.localcloud.oss.model.values import Kind, Meta, Object

PART = 100 * 1024


def any_object(_: Object) -> None:
    pass


ANY: Check = any_object


def stage(store: ObjectStore, content: bytes) -> Staged:
    with store.blobs.writing() as writer:
        for at in range(0, len(content), 1000):
            writer.write(content[at : at + 1000])
        return writer.finish()


def put(store: ObjectStore, key: str, content: bytes, only_new: bool = False) -> Object:
    staged = stage(store, content)
    with store.blobs.using(staged):
        return store.objects.put("here", key, staged, Meta(), only_new)


def content(store: ObjectStore, key: str) -> bytes:
    with store.open_object("here", key) as reader:
        gathered = bytearray()
        while data := reader.read(len(gathered), 700):
            gathered += data
        assert len(gathered) == reader.size
        return bytes(gathered)


def files(store_folder: Path) -> int:
    return sum(1 for _ in (store_folder / "oss" / "data").glob("??/*"))


def refused(code: str, call: Callable[[], object]) -> None:
    with pytest.raises(OssError) as caught:
        call()
    assert caught.value.code == code


def test_put_read_replace_delete(store: ObjectStore, tmp_path: Path) -> None:
    first, second = os.urandom(5000), os.urandom(100)
    put(store, "a", first)
    assert content(store, "a") == first
    put(store, "a", second)
    assert content(store, "a") == second
    assert files(tmp_path) == 1
    store.objects.delete("here", ["a", "never there"])
    assert not store.has("here", "a")
    assert files(tmp_path) == 0
    refused("NoSuchKey", lambda: store.open_object("here", "a"))
    refused("NoSuchBucket", lambda: store.open_object("there", "a"))


def test_an_empty_object_has_no_file(store: ObjectStore, tmp_path: Path) -> None:
    assert put(store, "a", b"").etag == "D41D8CD98F00B204E9800998ECF8427E"
    assert content(store, "a") == b"" and files(tmp_path) == 0


def test_a_reader_is_not_disturbed(store: ObjectStore, tmp_path: Path) -> None:
    old = os.urandom(3000)
    put(store, "a", old)
    with store.open_object("here", "a") as reader, store.open_object("here", "a") as other:
        assert reader.read(0, 10) == old[:10]
        put(store, "a", b"new")
        store.objects.delete("here", ["a"])
        other.copy_to(tmp_path / "copy")
        assert reader.read(10, 5000) == old[10:]
        assert files(tmp_path) == 1
    assert (tmp_path / "copy").read_bytes() == old
    assert files(tmp_path) == 0


def test_refused_content_leaves_nothing(store: ObjectStore, tmp_path: Path) -> None:
    put(store, "a", b"first")
    refused("FileAlreadyExists", lambda: put(store, "a", b"second", only_new=True))
    refused("InvalidObjectName", lambda: put(store, "/a", b"second"))
    refused("InvalidObjectName", lambda: put(store, "é" * 512, b"second"))
    refused("InvalidObjectName", lambda: put(store, "", b"second"))
    assert content(store, "a") == b"first" and files(tmp_path) == 1


def test_of_many_at_once_one_is_new(store: ObjectStore) -> None:
    outcomes: list[str] = []

    def attempt(number: int) -> None:
        try:
            put(store, "a", str(number).encode(), only_new=True)
            outcomes.append(str(number))
        except OssError as error:
            assert error.code == "FileAlreadyExists"

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 1 and content(store, "a").decode() == outcomes[0]


def test_append(store: ObjectStore, tmp_path: Path) -> None:
    def append(position: int, data: bytes) -> Object:
        staged = stage(store, data)
        with store.blobs.using(staged):
            return store.objects.append("here", "a", position, staged, Meta(user={"n": str(position)}))

    refused("PositionNotEqualToLength", lambda: append(1, b"abc"))
    assert append(0, b"").size == 0
    assert append(0, b"abc").size == 3
    with store.open_object("here", "a") as reader:
        grown = append(3, b"defg")
        assert reader.size == 3 and reader.read(0, 100) == b"abc" and reader.read(3, 100) == b""
    assert (grown.size, grown.kind, grown.meta.user) == (7, Kind.APPENDABLE, {"n": "0"})
    assert content(store, "a") == b"abcdefg"
    put(store, "b", b"abcdefg")
    assert grown.crc64 == store.objects.get("here", "b").crc64
    refused("PositionNotEqualToLength", lambda: append(3, b"abc"))
    assert files(tmp_path) == 3
    put(store, "a", b"x")
    refused("ObjectNotAppendable", lambda: append(1, b"abc"))
    assert files(tmp_path) == 2


def test_a_copy_shares_files(store: ObjectStore, tmp_path: Path) -> None:
    put(store, "a", b"content")
    store.objects.copy(("here", "a"), ("here", "b"), ANY, lambda meta: meta)
    assert files(tmp_path) == 1
    store.objects.delete("here", ["a"])
    assert content(store, "b") == b"content"
    store.objects.copy(("here", "b"), ("here", "b"), ANY, lambda _: Meta(user={"new": "yes"}))
    assert content(store, "b") == b"content" and store.objects.get("here", "b").meta.user == {"new": "yes"}
    store.objects.delete("here", ["b"])
    assert files(tmp_path) == 0


def test_parts_become_an_object(store: ObjectStore, tmp_path: Path) -> None:
    upload = store.uploads.begin("here", "a", Meta(user={"k": "v"})).id
    parts = {number: os.urandom(PART) for number in (7, 2, 9)}
    etags = {}
    for number, data in parts.items():
        store.uploads.put("here", "a", upload, number, stage(store, b"replaced"))
        etags[number] = store.uploads.put("here", "a", upload, number, stage(store, data)).etag
    assert files(tmp_path) == 3 and not store.has("here", "a")
    with pytest.raises(OssError, match="InvalidPartOrder"):
        store.uploads.complete("here", "a", upload, [(7, etags[7]), (2, etags[2])])
    with pytest.raises(OssError, match="InvalidPart"):
        store.uploads.complete("here", "a", upload, [(2, etags[7])])
    with pytest.raises(OssError, match="InvalidPart"):
        store.uploads.complete("here", "a", upload, [])
    made = store.uploads.complete("here", "a", upload, [(2, f'"{etags[2].lower()}"'), (7, etags[7])])
    assert content(store, "a") == parts[2] + parts[7]
    assert made.etag.endswith("-2") and made.kind is Kind.MULTIPART and made.meta.user == {"k": "v"}
    assert made.crc64 == put(store, "b", parts[2] + parts[7]).crc64
    assert files(tmp_path) == 3  # the part that was not wanted is gone
    refused("NoSuchUpload", lambda: store.uploads.abort("here", "a", upload))


def test_small_parts_are_refused_but_at_the_end(store: ObjectStore) -> None:
    upload = store.uploads.begin("here", "a", Meta()).id
    for number in (1, 2):
        store.uploads.put("here", "a", upload, number, stage(store, b"x" * (PART - 1)))
    refused("EntityTooSmall", lambda: store.uploads.complete("here", "a", upload, None))
    store.uploads.put("here", "a", upload, 1, stage(store, b"x" * PART))
    assert store.uploads.complete("here", "a", upload, None).size == 2 * PART - 1


def test_a_part_copied_from_an_object_that_goes(store: ObjectStore, tmp_path: Path) -> None:
    """The object is deleted while the part's digest is computed: the part has its bytes all the same."""
    data = os.urandom(3 * PART)
    put(store, "source", data)
    upload = store.uploads.begin("here", "a", Meta()).id

    def vanish(_: Object) -> None:
        threading.Thread(target=lambda: store.objects.delete("here", ["source"])).start()

    store.uploads.copy("here", "a", upload, 1, ("here", "source"), vanish, (100, 2 * PART + 99))
    store.uploads.complete("here", "a", upload, None)
    assert content(store, "a") == data[100 : 2 * PART + 100]
    store.objects.delete("here", ["a"])
    while store.has("here", "source"):
        pass
    assert files(tmp_path) == 0


def test_what_was_left_half_done_is_removed_at_the_start(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path / "oss")
    store.buckets.put("here", None, "Standard")
    put(store, "kept", b"kept")
    upload = store.uploads.begin("here", "u", Meta()).id
    store.uploads.put("here", "u", upload, 1, stage(store, b"part"))
    store.blobs.create().write(b"half")
    stage(store, b"whole, but nobody's")
    assert files(tmp_path) == 4
    store.close()
    store = ObjectStore(tmp_path / "oss")
    assert files(tmp_path) == 2
    assert content(store, "kept") == b"kept"
    store.uploads.complete("here", "u", upload, None)
    assert content(store, "u") == b"part"
    store.close()


def test_a_file_goes_in_and_out(store: ObjectStore, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.write(os.urandom(3000))
        file.truncate(4 << 20)
    store.put_file("here", "disk.raw", source)
    with store.open_object("here", "disk.raw") as reader:
        reader.copy_to(target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks * 512 <= 2 << 20


def test_buckets(store: ObjectStore) -> None:
    for bad in ("ab", "A" * 5, "-abc", "abc-", "a_b", "a" * 64, "a.b.c"):
        refused("InvalidBucketName", lambda bad=bad: store.buckets.put(bad, None, "Standard"))  # type: ignore[misc]
    put(store, "a", b"x")
    refused("BucketNotEmpty", lambda: store.buckets.delete("here"))
    store.objects.delete("here", ["a"])
    upload = store.uploads.begin("here", "a", Meta()).id
    refused("BucketNotEmpty", lambda: store.buckets.delete("here"))
    store.uploads.abort("here", "a", upload)
    store.buckets.delete("here")
    refused("NoSuchBucket", lambda: store.buckets.delete("here"))
    for number in range(100):
        store.buckets.put(f"bucket-{number}", None, "Standard")
    refused("TooManyBuckets", lambda: store.buckets.put("one-more", None, "Standard"))
    store.buckets.put("bucket-7", "public-read", "Standard")
    assert store.buckets.get("bucket-7").acl == "public-read"


def test_zeros_take_no_room(store: ObjectStore, tmp_path: Path) -> None:
    middle = os.urandom(1 << 20)
    with store.blobs.writing() as writer:
        for data in (bytes(4 << 20), middle, bytes(4 << 20)):
            writer.write(data)
        staged = writer.finish()
    store.objects.put("here", "a", staged, Meta())
    assert content(store, "a") == bytes(4 << 20) + middle + bytes(4 << 20)
    assert sum(path.stat().st_blocks * 512 for path in (tmp_path / "oss" / "data").glob("??/*")) <= 2 << 20


def test_a_page_of_many_costs_what_it_shows(store: ObjectStore) -> None:
    """Counted in steps of SQLite's machine, a thousand at a time."""
    meta = Meta().dump()
    with store._index.transaction() as tx:
        for number in range(100_000):
            key = f"{number % 10}/{number:06}"
            tx.run("INSERT INTO object VALUES ('here', ?, 0, 0, 'x', '0', 0, 'Normal', ?)", key, meta)
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    store._index._connection.set_progress_handler(count, 1000)
    folders = store.objects.list("here", "", "/", "", 1000)
    assert folders.prefixes == [f"{number}/" for number in range(10)] and not folders.truncated
    assert steps <= 10
    page = store.objects.list("here", "7/", "", "7/05", 1000)
    assert len(page.items) == 1000 and page.items[0].key == "7/050007" and page.truncated
    assert steps <= 60


def test_what_is_too_large_to_copy(store: ObjectStore) -> None:
    """Between buckets 5 GiB, into another storage class 1 GiB, within a bucket anything."""
    store.buckets.put("there", None, "Standard")
    with store._index.transaction() as tx:
        for key, size in (("large", 6 << 30), ("middle", 2 << 30)):
            row = ("here", key, 0, size, "x", "0", 0, "Normal", Meta().dump())
            tx.run("INSERT INTO object VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", *row)

    def copy(key: str, bucket: str, storage_class: str = "Standard") -> None:
        store.objects.copy(("here", key), (bucket, "copy"), ANY, lambda _: Meta(storage_class=storage_class))

    copy("large", "here")
    copy("middle", "there")
    refused("EntityTooLarge", lambda: copy("large", "there"))
    refused("EntityTooLarge", lambda: copy("middle", "here", "IA"))
