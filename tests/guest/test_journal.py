"""What was changed can be taken back, to the byte, unless somebody has changed it since."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.guest.conftest import applied
from wavelift.guest.draft import Draft
from wavelift.guest.errors import ChangedSince, NothingToUndo
from wavelift.guest.files import Content, DirectoryFiles, Link
from wavelift.guest.journal import journalled, undone

Tree = dict[str, bytes | str]


def tree_of(root: Path) -> Tree:
    """By path: bytes of a file, what a link says."""
    return {
        str(path.relative_to(root)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def prepare(root: Path) -> None:
    draft = Draft(DirectoryFiles(root))
    draft.write("/etc/fstab", "UUID=1 / ext4\n", "by UUID")
    draft.write("/boot/initrd", b"old initramfs" + os.urandom(99), "drivers")
    draft.write("/etc/new/deep/file", "x", "new")
    draft.make_link("/etc/systemd/vmtoolsd.service", "/dev/null", "off")
    draft.make_link("/etc/replaced", "/dev/null", "off")
    draft.write("/etc/resolv.conf", "nameserver 1.1.1.1\n", "through a link that leads nowhere")
    draft.write("/etc/alias", "changed through a link", "link")
    draft.remove("/etc/gone", "left over")
    draft.write("/etc/same", "same", "no change")
    applied(root, journalled(draft.edits(), DirectoryFiles(root)))


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    for path, content in (
        *(("etc/fstab", b"/dev/sda1 / ext4\n"), ("boot/initrd", b"old initramfs"), ("etc/gone", b"g")),
        *(("etc/replaced", b"unit"), ("etc/same", b"same"), ("etc/real", b"real")),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    (tmp_path / "etc/resolv.conf").symlink_to("../run/resolv.conf")
    (tmp_path / "etc/alias").symlink_to("/etc/real")
    return tmp_path


def test_all_is_taken_back(guest: Path) -> None:
    before = tree_of(guest)
    prepare(guest)
    once = tree_of(guest)
    assert once["etc/systemd/vmtoolsd.service"] == "/dev/null" and "etc/gone" not in once
    assert once["etc/alias"] == "/etc/real" and once["etc/real"] == b"changed through a link"
    paths = [entry["path"] for entry in json.loads(once["var/lib/wavelift/prepare-1.json"])["files"]]
    assert "/etc/same" not in paths and paths[0] == "/etc/fstab"
    # What only grows costs the journal nothing.
    assert len(once["var/lib/wavelift/prepare-1.json"]) < 5000

    (guest / "etc/fstab").write_bytes(b"UUID=2 / ext4\n")
    draft = Draft(DirectoryFiles(guest))
    draft.write("/etc/fstab", "UUID=3 / ext4\n", "again")
    applied(guest, journalled(draft.edits(), DirectoryFiles(guest)))
    applied(guest, undone(DirectoryFiles(guest)))
    assert (guest / "etc/fstab").read_bytes() == b"UUID=2 / ext4\n"
    (guest / "etc/fstab").write_bytes(b"UUID=1 / ext4\n")
    applied(guest, undone(DirectoryFiles(guest)))
    assert tree_of(guest) == before
    with pytest.raises(NothingToUndo):
        undone(DirectoryFiles(guest))


@pytest.mark.parametrize("reached", range(9))
def test_a_preparation_cut_short_is_taken_back_as_far_as_it_came(guest: Path, reached: int) -> None:
    before = tree_of(guest)
    draft = Draft(DirectoryFiles(guest))
    draft.write("/etc/fstab", "new", "by UUID")
    draft.write("/boot/initrd", b"old initramfs and drivers", "drivers")
    draft.write("/etc/new/deep/file", "x", "new")
    draft.make_link("/etc/replaced", "/dev/null", "off")
    draft.make_link("/etc/alias", "/dev/null", "off")
    draft.remove("/etc/gone", "left over")
    edits = journalled(draft.edits(), DirectoryFiles(guest))
    applied(guest, edits[: reached + 1])
    applied(guest, undone(DirectoryFiles(guest)))
    assert tree_of(guest) == before


def test_what_was_changed_since_is_not_lost(guest: Path) -> None:
    prepare(guest)
    (guest / "etc/fstab").write_bytes(b"edited")
    before = tree_of(guest)
    with pytest.raises(ChangedSince, match="/etc/fstab"):
        undone(DirectoryFiles(guest))
    assert tree_of(guest) == before


@pytest.mark.parametrize("broken", [b"", b"{}", b'{"version": 9, "files": []}', b'{"version": 1, "files": [1]}'])
def test_a_broken_journal_is_said(guest: Path, broken: bytes) -> None:
    prepare(guest)
    (guest / "var/lib/wavelift/prepare-1.json").write_bytes(broken)
    with pytest.raises(NothingToUndo, match=r"prepare-1\.json cannot be read"):
        undone(DirectoryFiles(guest))


CONTENTS = st.one_of(st.none(), st.binary(max_size=60), st.sampled_from([Link("/a"), Link("../x")]))


@given(st.dictionaries(st.sampled_from(["/f", "/d/g", "/d/e/h"]), st.tuples(CONTENTS, CONTENTS)))
def test_any_change_and_back(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, tuple[Content, Content]]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for path, (before, _) in changes.items():
        target = root / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(before, Link):
            target.symlink_to(before.target)
        elif before is not None:
            target.write_bytes(before)
    was = tree_of(root)
    draft = Draft(DirectoryFiles(root))
    for path, (_, after) in changes.items():
        if isinstance(after, Link):
            draft.make_link(path, after.target, "a link")
        elif after is not None:
            draft.write(path, after, "a file")
        else:
            draft.remove(path, "gone")
    edits = journalled(draft.edits(), DirectoryFiles(root))
    applied(root, edits)
    for path, (_, after) in changes.items():
        target = root / path[1:]
        there = target.read_bytes() if target.is_file() and not target.is_symlink() else None
        assert (Link(str(target.readlink())) if target.is_symlink() else there) == after
    if edits:
        applied(root, undone(DirectoryFiles(root)))
    assert tree_of(root) == was
