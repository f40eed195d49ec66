"""Generations written into the data disk: what changed is there, and the file system is clean."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from demo.machine import MachineFiles, write_generation
from demo.machine.change import read_generation
from demo.machine.data import parse_checksums
from demo.machine.disk import PARTITION_START

pytestmark = pytest.mark.machine


@pytest.fixture
def data_disk(demo_machine: MachineFiles, tmp_path: Path) -> Path:
    target = tmp_path / "data.img"
    subprocess.run(["cp", "--sparse=always", str(demo_machine.data), str(target)], check=True)
    return target


def dump(image: Path, folder: Path) -> Path:
    partition = f"{image}?offset={PARTITION_START}"
    subprocess.run(["/sbin/debugfs", "-R", f"rdump / {folder}", partition], check=True, capture_output=True)
    return folder


def test_each_generation_is_consistent(data_disk: Path, tmp_path: Path) -> None:
    before = hashlib.sha256(data_disk.read_bytes()).digest()
    for generation in (2, 3):
        write_generation(data_disk, generation)
        assert read_generation(data_disk) == generation
        tree = tmp_path / f"tree-{generation}"
        tree.mkdir()
        dump(data_disk, tree)
        digests = parse_checksums((tree / "SHA256SUMS").read_text())
        assert f"images/upload-{generation}.bin" in digests
        for name, digest in digests.items():
            assert hashlib.sha256((tree / name).read_bytes()).hexdigest() == digest, name
    assert hashlib.sha256(data_disk.read_bytes()).digest() != before


def test_writing_is_reproducible(data_disk: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin.img"
    subprocess.run(["cp", "--sparse=always", str(data_disk), str(twin)], check=True)
    write_generation(data_disk, 2)
    write_generation(twin, 2)
    for image in (data_disk, twin):
        (tmp_path / image.stem).mkdir()
        dump(image, tmp_path / image.stem)
    listed = [(tmp_path / image.stem / "SHA256SUMS").read_text() for image in (data_disk, twin)]
    assert listed[0] == listed[1]


def test_the_first_generation_is_the_builders(data_disk: Path) -> None:
    assert read_generation(data_disk) == 1
    with pytest.raises(ValueError, match="changes start at 2"):
        write_generation(data_disk, 1)
