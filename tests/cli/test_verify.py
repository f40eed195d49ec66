"""`wavelift map` and `wavelift verify` as processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.blocks import reader
from tests.cli.conftest import MIB, Shell, noise, write
from wavelift.blocks.blockmap import read_map
from wavelift.blocks.digest import BLOCK, SEGMENT

SIZE = SEGMENT + 5 * MIB


@pytest.fixture
def disks(shell: Shell) -> tuple[Path, Path]:
    pieces = {0: noise(MIB), SEGMENT - BLOCK: noise(2 * BLOCK, 1)}
    return shell.image("a.raw", SIZE, pieces), shell.image("b.raw", SIZE, pieces)


def test_equal_disks_are_the_same(shell: Shell, disks: tuple[Path, Path]) -> None:
    done = shell.run("verify", "a.raw", "b.raw")
    assert (done.returncode, done.stdout) == (0, "the same: 1.0 GiB\n")


def test_differences_are_named_by_their_bytes(shell: Shell, disks: tuple[Path, Path]) -> None:
    write(disks[1], {MIB - 1: b"x", SEGMENT - 1: b"y", SEGMENT: b"z", SIZE - 1: b"w"})
    found = shell.json("verify", "a.raw", "b.raw", status=1)
    assert found["event"] == "result" and not found["same"]
    assert found["ranges"] == [[MIB - BLOCK, MIB], [SEGMENT - BLOCK, SEGMENT + BLOCK], [SIZE - BLOCK, SIZE]]
    said = shell.run("verify", "a.raw", "b.raw")
    assert said.returncode == 1 and f"  bytes {MIB - BLOCK} to {MIB}\n" in said.stdout


def test_many_differences_are_all_in_the_json_alone(shell: Shell, disks: tuple[Path, Path]) -> None:
    write(disks[1], {at * MIB: b"x" for at in range(100, 200)})
    said = shell.run("verify", "a.raw", "b.raw").stdout
    assert "in 100 range(s)" in said and "and 80 more" in said
    assert len(shell.json("verify", "a.raw", "b.raw", status=1)["ranges"]) == 100


def test_a_block_map_stands_for_its_disk(shell: Shell, disks: tuple[Path, Path]) -> None:
    made = shell.json("map", "-o", "maps/monday.map", "a.raw")
    assert (
        made["root"] == reader.disk_root(disks[0], SIZE).hex() == read_map(shell.folder / "maps/monday.map").root.hex()
    )
    assert shell.json("map", "a.raw")["root"] == made["root"]
    write(disks[0], {SEGMENT + MIB: b"changed"})
    for pair in (("maps/monday.map", "a.raw"), ("a.raw", "maps/monday.map")):
        found = shell.json("verify", *pair, status=1)
        assert found["ranges"] == [[SEGMENT + MIB, SEGMENT + MIB + BLOCK]]
    shell.run("map", "-o", "maps/friday.map", "a.raw")
    assert shell.json("verify", "maps/monday.map", "maps/friday.map", status=1)["different_bytes"] == BLOCK
    assert shell.json("verify", "maps/monday.map", "b.raw")["same"]


def test_a_block_map_replaces_nothing_but_block_maps(shell: Shell) -> None:
    disk = shell.image("a.raw", MIB, {0: noise(MIB)})
    shell.image("b.raw", MIB, {})
    before = disk.read_bytes()
    (shell.folder / "link").symlink_to(disk)
    (shell.folder / "letter").write_text("dear")
    for output, said in (
        ("a.raw", "the same"),
        ("link", "the same"),
        ("letter", "no block map"),
        ("tmp", "no block map"),
    ):
        error = shell.json("map", "-o", output, "a.raw", status=2)
        assert error["code"] == "output_refused" and said in error["message"]
    assert disk.read_bytes() == before and (shell.folder / "letter").read_text() == "dear"
    shell.json("map", "-o", "a.map", "a.raw")
    # A block map is a source too, and the one that is read.
    assert shell.json("map", "-o", "a.map", "a.map", status=2)["code"] == "output_refused"
    shell.json("map", "-o", "a.map", "b.raw")


def test_the_root_is_one_line_for_a_script(shell: Shell, disks: tuple[Path, Path]) -> None:
    done = shell.run("map", "a.raw")
    assert done.stdout.split()[:2] == [reader.disk_root(disks[0], SIZE).hex(), "a.raw"] and done.stderr == ""


def test_a_damaged_block_map_is_no_verdict(shell: Shell, disks: tuple[Path, Path]) -> None:
    shell.run("map", "-o", "maps/a.map", "a.raw")
    table = next((shell.folder / "maps/segments").iterdir())
    table.write_bytes(bytes(table.stat().st_size))
    # The index alone tells that all is the same; where it differs only the table does.
    assert shell.json("verify", "maps/a.map", "b.raw")["same"]
    write(disks[1], {at: b"x" for at in (0, SEGMENT)})
    error = shell.json("verify", "maps/a.map", "b.raw", status=2)
    assert error["code"] == "bad_block_map" and "segments/" in error["message"]


def test_disks_of_other_sizes_differ(shell: Shell, disks: tuple[Path, Path]) -> None:
    shell.image("short.raw", MIB, {0: noise(MIB)})
    done = shell.run("verify", "a.raw", "short.raw")
    assert done.returncode == 1 and f"{SIZE} bytes and {MIB} bytes" in done.stdout


def test_what_cannot_be_read_is_no_difference(shell: Shell, disks: tuple[Path, Path]) -> None:
    error = shell.json("verify", "a.raw", "missing.raw", status=2)
    assert error["event"] == "error" and "missing.raw" in error["message"]
    done = shell.run("verify", "a.raw", "missing.raw")
    assert done.returncode == 2 and done.stderr.startswith("error: missing.raw") and done.stdout == ""
    assert json.loads(shell.run("map", "--json", "missing.raw").stdout)["event"] == "error"
