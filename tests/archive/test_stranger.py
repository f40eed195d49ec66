"""What is documented is what is written: a reader made from the document alone restores every generation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.archive.disk import MASTER, MIB, SIZE, Disk
from tests.archive.stranger import Archive
from tests.blocks.reader import Refused
from wavelift.archive.keys import KeyOf
from wavelift.blocks.digest import BLOCK


@pytest.mark.parametrize("key", [None, MASTER], ids=["plain", "sealed"])
def test_a_stranger_restores_every_generation(tmp_path: Path, key: KeyOf | None) -> None:
    disk = Disk(tmp_path, key=key)
    disk.noise(5 * BLOCK, 3 * MIB)
    disk.write(7 * MIB, b"text that compresses " * 90_000)
    disk.noise(SIZE - 700, 700)
    contents = [disk.path.read_bytes()]
    disk.copy(1, None)
    disk.noise(MIB, 200_000)
    disk.write(6 * BLOCK, bytes(BLOCK))
    contents.append(disk.path.read_bytes())
    disk.copy(2, 1)
    # The same again: a generation without a pack.
    contents.append(disk.path.read_bytes())
    assert disk.copy(3, 2).packs == 0
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    archive = Archive(tmp_path / "kept", bytes(range(32)), scratch)
    for number, wanted in enumerate(contents, 1):
        assert archive.content(number) == wanted == disk.read(number)
    if key is not None:
        with pytest.raises(Refused, match="another key"):
            Archive(tmp_path / "kept", bytes(32), scratch)
    about = json.loads((tmp_path / "kept/archive.json").read_bytes())
    assert (about["key"] is None) is (key is None)
