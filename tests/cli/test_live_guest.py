"""A running machine's disk as a source: `qmp:SOCKET?node=NODE`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.conftest import MIB, Shell
from tests.cli.test_ending import first_progress
from tests.sources.test_qemu import Machine
from wavelift.blocks.digest import BLOCK


@pytest.fixture
def machine(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    # What the guest overwrites meanwhile is kept in the user's cache folder.
    monkeypatch.setenv("HOME", str(shell.folder))
    made = Machine(shell.folder, a=16 * MIB)
    yield made
    made.stop(kill=True)


def test_a_live_disk_is_followed_by_its_bitmap_and_left_clean(shell: Shell, machine: Machine) -> None:
    source = f"qmp:{machine.monitor}?node=node-a"
    machine.io("a", "write -P 1 0 4M")
    first = shell.json("copy", "--state", "kept", source, "copy.raw")
    assert first["consistency"] == "crash-consistent" and first["sent_bytes"] == 4 * MIB
    kept = machine.bitmaps("a")
    assert len(kept) == 1
    machine.io("a", "write -P 2 8M 64k")
    # Looks that nothing follows leave nothing behind, and what another copy keeps alone.
    assert shell.json("verify", source, "copy.raw", status=1)["ranges"] == [[8 * MIB, 8 * MIB + BLOCK]]
    shell.json("map", source)
    shell.json("copy", source, "once.raw")
    assert machine.bitmaps("a") == kept and machine.left() == []
    second = shell.json("copy", "--since", "kept", "--verify", "full", source, "copy.raw")
    assert second["tracker"] == "bitmap" and second["read_bytes"] == second["sent_bytes"] == BLOCK
    assert (shell.folder / "copy.raw").read_bytes() == machine.content("a") == (shell.folder / "once.raw").read_bytes()
    error = shell.json("copy", f"qmp:{machine.monitor}?node=none", "else.raw", status=2)
    assert "none" in error["message"] and not (shell.folder / "else.raw").exists()


def test_a_copy_of_a_live_disk_that_was_killed_can_be_repeated(shell: Shell, machine: Machine) -> None:
    source = f"qmp:{machine.monitor}?node=node-a"
    machine.io("a", "write -P 1 0 8M")
    for arguments in (("--state", "kept"), ()):
        process = shell.start("copy", "--json", "--limit", "1M", "--overwrite", *arguments, source, "copy.raw")
        first_progress(process)
        process.kill()
        process.communicate()
        assert machine.left() != []
        shell.json("copy", "--overwrite", *arguments, source, "copy.raw")
        assert (shell.folder / "copy.raw").read_bytes() == machine.content("a") and machine.left() == []
