"""Anything in any order, restarts between: the store against a dictionary."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
from fastcrc import crc64
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from wavelift.localcloud.oss.errors import OssError
from wavelift.localcloud.oss.model.blobs import Reader, Staged
from wavelift.localcloud.oss.model.store import ObjectStore
from wavelift.localcloud.oss.model.values import Kind, Meta

KEYS = st.sampled_from(["a", "b", "folder/a", "folder/b"])
LENGTHS = st.sampled_from([0, 1, 1000, 100 * 1024, 130_000])
FILLERS = st.integers(0, 255)


class Machine(RuleBasedStateMachine):
    uploads = Bundle("uploads")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = ObjectStore(self.folder)
        self.store.buckets.put("here", None, "Standard")
        self.content: dict[str, bytes] = {}
        self.kind: dict[str, Kind] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.key_of: dict[str, str] = {}
        self.readers: list[tuple[Reader, bytes]] = []

    def stage(self, data: bytes) -> Staged:
        with self.store.blobs.writing() as writer:
            writer.write(data)
            return writer.finish()

    def attempt(self, staged: Staged, call: Callable[[Staged], object]) -> str:
        try:
            with self.store.blobs.using(staged):
                call(staged)
        except OssError as error:
            return error.code
        return ""

    @rule(key=KEYS, length=LENGTHS, filler=FILLERS, only_new=st.booleans())
    def put(self, key: str, length: int, filler: int, only_new: bool) -> None:
        data = bytes([filler]) * length
        code = self.attempt(self.stage(data), lambda s: self.store.objects.put("here", key, s, Meta(), only_new))
        assert code == ("FileAlreadyExists" if only_new and key in self.content else "")
        if not code:
            self.content[key], self.kind[key] = data, Kind.NORMAL

    @rule(key=KEYS, length=LENGTHS, filler=FILLERS, at_end=st.booleans())
    def append(self, key: str, length: int, filler: int, at_end: bool) -> None:
        data, old = bytes([filler]) * length, self.content.get(key, b"")
        position = len(old) if at_end else len(old) + 1
        code = self.attempt(self.stage(data), lambda s: self.store.objects.append("here", key, position, s, Meta()))
        if self.kind.get(key, Kind.APPENDABLE) is not Kind.APPENDABLE:
            assert code == "ObjectNotAppendable"
        elif not at_end:
            assert code == "PositionNotEqualToLength"
        else:
            assert not code
            self.content[key], self.kind[key] = old + data, Kind.APPENDABLE

    @rule(source=KEYS, goal=KEYS)
    def copy(self, source: str, goal: str) -> None:
        try:
            self.store.objects.copy(("here", source), ("here", goal), lambda _: None, lambda meta: meta)
        except OssError as error:
            assert error.code == "NoSuchKey" and source not in self.content
            return
        if source != goal:
            kind = self.kind[source]
            self.content[goal] = self.content[source]
            self.kind[goal] = Kind.NORMAL if kind is Kind.APPENDABLE else kind

    @rule(keys=st.lists(KEYS, max_size=3))
    def delete(self, keys: list[str]) -> None:
        self.store.objects.delete("here", keys)
        for key in keys:
            self.content.pop(key, None)
            self.kind.pop(key, None)

    @rule(target=uploads, key=KEYS)
    def begin(self, key: str) -> str:
        upload = self.store.uploads.begin("here", key, Meta()).id
        self.parts[upload], self.key_of[upload] = {}, key
        return upload

    @rule(upload=uploads, number=st.integers(1, 3), length=LENGTHS, filler=FILLERS)
    def part(self, upload: str, number: int, length: int, filler: int) -> None:
        data, key = bytes([filler]) * length, self.key_of[upload]
        code = self.attempt(self.stage(data), lambda s: self.store.uploads.put("here", key, upload, number, s))
        assert code == ("" if upload in self.parts else "NoSuchUpload")
        if not code:
            self.parts[upload][number] = data

    @rule(upload=uploads, number=st.integers(1, 3), source=KEYS, cut=st.booleans())
    def part_copy(self, upload: str, number: int, source: str, cut: bool) -> None:
        old = self.content.get(source, b"")
        span = (1, len(old) - 2) if cut and len(old) > 2 else None
        try:
            self.store.uploads.copy("here", self.key_of[upload], upload, number, ("here", source), lambda _: None, span)
        except OssError as error:
            assert error.code == ("NoSuchUpload" if upload not in self.parts else "NoSuchKey")
            return
        self.parts[upload][number] = old[1:-1] if span else old

    @rule(upload=uploads)
    def complete(self, upload: str) -> None:
        key, parts = self.key_of[upload], self.parts.get(upload)
        try:
            self.store.uploads.complete("here", key, upload, None)
        except OssError as error:
            if parts is None:
                assert error.code == "NoSuchUpload"
            elif not parts:
                assert error.code == "InvalidPart"
            else:
                small = [len(parts[number]) < 100 * 1024 for number in sorted(parts)[:-1]]
                assert error.code == "EntityTooSmall" and any(small)
            return
        assert parts
        self.content[key] = b"".join(parts[number] for number in sorted(parts))
        del self.parts[upload]
        self.kind[key] = Kind.MULTIPART

    @rule(upload=uploads)
    def abort(self, upload: str) -> None:
        if upload in self.parts:
            self.store.uploads.abort("here", self.key_of[upload], upload)
            del self.parts[upload]

    @precondition(lambda self: self.content)
    @rule(data=st.data())
    def open(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.content)))
        self.readers.append((self.store.open_object("here", key), self.content[key]))

    @precondition(lambda self: self.readers)
    @rule()
    def read(self) -> None:
        reader, expected = self.readers.pop(0)
        with reader:
            gathered = b""
            while data := reader.read(len(gathered), 50_000):
                gathered += data
        assert gathered == expected

    @rule()
    def restart(self) -> None:
        while self.readers:
            self.read()
        self.stage(b"nobody's")
        self.store.close()
        self.store = ObjectStore(self.folder)

    @invariant()
    def everything_is_there(self) -> None:
        listed = self.store.objects.list("here", "", "", "", 1000).items
        assert [(each.key, each.size, each.kind) for each in listed] == [
            (key, len(self.content[key]), self.kind[key]) for key in sorted(self.content)
        ]
        assert all(each.crc64 == crc64.xz(self.content[each.key]) for each in listed)

    @invariant()
    def no_file_too_many(self) -> None:
        if self.readers:
            return
        with self.store._index.view() as tx:
            assert {path.name for path in (self.folder / "data").glob("??/*")} == tx.known_blobs()

    def teardown(self) -> None:
        for reader, _ in self.readers:
            reader.close()
        self.store.close()
        shutil.rmtree(self.folder)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=10, stateful_step_count=25, deadline=None)
