"""What only a directory can do wrong: full, read-only, taken out, cut short."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wavelift.stores.base import Full, NotThere, Unavailable
from wavelift.stores.directory import DirectoryStore


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "wavelift-test", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_said_and_nothing_of_the_object_stays(small: Path) -> None:
    store = DirectoryStore(small)
    store.put("a/1", bytes(3 << 20))
    with pytest.raises(Full, match="a/2 cannot be written"):
        store.put("a/2", bytes(2 << 20))
    assert [entry.key for entry in store.list("")] == ["a/1"] and len(list((small / "a").iterdir())) == 1
    store.put("a/2", bytes(1 << 19))


def test_a_directory_that_went_is_not_one_without_objects(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "disk")
    (tmp_path / "disk").mkdir()
    with pytest.raises(NotThere):
        store.get("a/1")
    store.put("a/1", b"x")
    shutil.rmtree(tmp_path / "disk")
    for ask in (lambda: store.get("a/1"), lambda: store.size("a/1"), lambda: list(store.list(""))):
        with pytest.raises(Unavailable) as caught:
            ask()
        assert caught.value.retryable and "mounted" in caught.value.remedy
    with pytest.raises(Unavailable):
        store.put("a/1", b"x")
    assert not (tmp_path / "disk").exists()


def test_a_disk_that_is_taken_out_while_it_is_listed_is_not_one_without_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, place = tmp_path / "disk", tmp_path / "place"
    place.mkdir()
    disk.mkdir()
    DirectoryStore(disk).put("a/1", b"x")
    walk = os.walk

    def taken_out(*args: Any, **kwargs: Any) -> Iterator[Any]:
        for found in walk(*args, **kwargs):
            disk.rename(tmp_path / "out")
            place.rename(disk)
            yield found

    monkeypatch.setattr(os, "walk", taken_out)
    with pytest.raises(Unavailable, match="another directory"):
        list(DirectoryStore(disk).list("a/"))


def test_what_was_put_is_not_read_back_from_the_page_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wavelift.blocks.volume.open_direct", lambda path: None)
    DirectoryStore(tmp_path).put("a/1", os.urandom(3 << 20))
    assert _cached(tmp_path / "a/1") == 0
    (tmp_path / "a/1").read_bytes()
    assert _cached(tmp_path / "a/1") == (3 << 20) // mmap.PAGESIZE


def _cached(path: Path) -> int:
    """Pages of a file that are in the page cache."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        pages = (ctypes.c_ubyte * (len(mapped) // mmap.PAGESIZE))()
        view = (ctypes.c_char * len(mapped)).from_buffer(mapped)
        assert ctypes.CDLL(None, use_errno=True).mincore(ctypes.byref(view), ctypes.c_size_t(len(mapped)), pages) == 0
        del view
    return sum(page & 1 for page in pages)


def test_what_a_kill_left_is_no_object(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put("a/1", b"x")
    (tmp_path / "a/.new-0011223344556677").write_bytes(b"half")
    assert [entry.key for entry in store.list("")] == ["a/1"]
