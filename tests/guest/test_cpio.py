"""Archives: what is written is what is read, by us and by cpio itself."""

import stat
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavelift.guest.initramfs import cpio

numbers = st.integers(0, 0xFFFFFFFF)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(
    lambda name: name != "TRAILER!!!"
)
entries = st.builds(
    cpio.Entry,
    name=names,
    mode=numbers,
    content=st.binary(max_size=300),
    uid=numbers,
    gid=numbers,
    mtime=numbers,
    inode=numbers,
    links=numbers,
    rdev=st.tuples(numbers, numbers),
)


@given(st.lists(entries, max_size=8), st.binary(max_size=16))
def test_round_trip(files: list[cpio.Entry], behind: bytes) -> None:
    archive = cpio.write_archive(files)
    assert len(archive) % 4 == 0
    assert cpio.read_archive(archive + behind) == (files, len(archive))


@given(st.lists(entries, min_size=1, max_size=4), st.data())
def test_a_shortened_archive_is_an_error(files: list[cpio.Entry], data: st.DataObject) -> None:
    archive = cpio.write_archive(files)
    end = data.draw(st.integers(0, len(archive) - 4))
    with pytest.raises(cpio.CpioError):
        cpio.read_archive(archive[:end])


def test_cpio_reads_it() -> None:
    archive = cpio.write_archive([cpio.folder("a"), cpio.file("a/b", b"hello"), cpio.file("c", b"")])
    shown = subprocess.run(["cpio", "-it"], input=archive, capture_output=True, check=True)
    assert shown.stdout.decode().split() == ["a", "a/b", "c"]


def test_reads_what_cpio_writes(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("tree")
    (folder / "file").write_bytes(b"x" * 5001)
    (folder / "link").symlink_to("file")
    done = subprocess.run(
        ["cpio", "-o", "-H", "newc"], cwd=folder, input=b"file\nlink\n", capture_output=True, check=True
    )
    found, end = cpio.read_archive(done.stdout)
    assert [entry.content for entry in found] == [b"x" * 5001, b"file"]
    assert stat.S_ISLNK(found[1].mode)
    assert not done.stdout[end:].strip(b"\0")


@pytest.mark.parametrize("broken", [b"", b"070701", b"x" * 200, b"070701" + b"Z" * 200])
def test_no_archive(broken: bytes) -> None:
    with pytest.raises(cpio.CpioError):
        cpio.read_archive(broken)
