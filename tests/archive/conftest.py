"""Disks with archives of every kind that needs no server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.archive.disk import MASTER, Disk
from wavelift.stores.memory import MemoryStore

KINDS = {
    "directory": lambda folder: Disk(folder),
    "sealed memory": lambda folder: Disk(folder, MemoryStore(), MASTER),
}


@pytest.fixture(params=KINDS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return KINDS[request.param](tmp_path)


@pytest.fixture
def plain(tmp_path: Path) -> Disk:
    return Disk(tmp_path)
