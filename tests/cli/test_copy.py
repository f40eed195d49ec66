"""`wavelift copy` as people run it: a process, files, its exit status and what it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cli.conftest import MIB, Shell, allocated, noise, same, write
from wavelift.agent.journal import read_lines
from wavelift.agent.state import MigrationState
from wavelift.blocks.digest import BLOCK
from wavelift.cli.main import main
from wavelift.cli.targets import LocalTarget

SIZE = 20 * MIB + 512


@pytest.fixture
def disk(shell: Shell) -> Path:
    return shell.image("disk.raw", SIZE, {0: noise(3 * MIB), 9 * MIB: noise(MIB, 1), SIZE - 512: noise(512, 2)})


def test_a_file_that_is_not_there_is_made_with_its_holes(shell: Shell, disk: Path) -> None:
    done = shell.run("copy", "--verify", "full", "disk.raw", "copy.raw")
    assert done.returncode == 0 and "the target was read back and has this root" in done.stdout
    assert same(disk, shell.folder / "copy.raw")
    assert allocated(shell.folder / "copy.raw") <= allocated(disk) + 4 * BLOCK
    assert shell.left() == []


def test_a_result_a_program_can_read(shell: Shell, disk: Path) -> None:
    done = shell.run("copy", "--json", "--verify", "full", "disk.raw", "copy.raw")
    assert done.returncode == 0 and done.stderr == ""
    *_, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert last["event"] == "result" and last["verified"] == "full" and last["size"] == SIZE
    # The last block is a partial one; three megabytes, one, and that.
    assert last["sent_bytes"] == 4 * MIB + 512 and last["wrong_ranges"] == [] and last["state"] is None
    assert last["root"] == shell.json("map", "copy.raw")["root"]


def test_what_is_there_is_overwritten_only_when_told_to(shell: Shell, disk: Path) -> None:
    target = shell.image("copy.raw", SIZE + MIB, {0: noise(SIZE + MIB, 5)})
    before = target.read_bytes()
    refused = shell.run("copy", "disk.raw", "copy.raw")
    assert refused.returncode == 2 and "--overwrite" in refused.stderr
    assert target.read_bytes() == before
    # Zeroes of the source are zeroes at the target, and what lies behind is left alone.
    done = shell.run("copy", "--overwrite", "disk.raw", "copy.raw")
    assert target.read_bytes() == disk.read_bytes() + before[SIZE:]
    assert f"last {MIB} bytes stay" in done.stderr


def test_an_empty_file_is_as_good_as_none(shell: Shell, disk: Path) -> None:
    (shell.folder / "copy.raw").touch(0o640)
    shell.json("copy", "disk.raw", "copy.raw")
    assert same(disk, shell.folder / "copy.raw")


@pytest.mark.parametrize("target", ["disk.raw", "link.raw", "hard.raw", "./disk.raw"])
def test_a_disk_is_never_copied_onto_itself(shell: Shell, disk: Path, target: str) -> None:
    before = disk.read_bytes()
    (shell.folder / "link.raw").symlink_to(disk)
    (shell.folder / "hard.raw").hardlink_to(disk)
    for source in ("disk.raw", f"raw:{target}"):
        error = shell.json("copy", "--overwrite", source, target, status=2)
        assert error["code"] == "target_refused" and "the same" in error["message"]
    assert disk.read_bytes() == before


def test_a_target_that_cannot_be_is_refused_before_anything_is_written(shell: Shell, disk: Path) -> None:
    small = shell.image("small.raw", 5 * MIB, {0: b"o" * 5 * MIB})
    error = shell.json("copy", "--overwrite", "disk.raw", "small.raw", status=2)
    assert error["code"] == "volume_too_small" and str(SIZE) in error["message"]
    assert small.read_bytes() == b"o" * 5 * MIB
    assert f"truncate -s {SIZE}" in error["remedy"]
    (shell.folder / "dangling").symlink_to("gone.raw")
    for target, said in (
        ("nowhere/copy.raw", "No such file"),
        ("tmp", "directory"),
        ("/dev/null", "neither"),
        ("/dev/sdxyz", "no device"),
        ("raw:copy.raw", "no target"),
        ("nbd://127.0.0.1:1", "no target"),
        ("new/", "folder"),
        ("dangling", "which is not there"),
    ):
        error = shell.json("copy", "--overwrite", "disk.raw", target, status=2)
        assert error["code"] == "target_refused" and said in error["message"]
    missing = shell.json("copy", "missing.raw", "copy.raw", status=2)
    assert missing["code"] == "source_unreadable" and not (shell.folder / "copy.raw").exists()
    assert shell.left() == []


def test_an_image_that_a_machine_uses_is_refused(shell: Shell, disk: Path) -> None:
    target = shell.image("busy.raw", SIZE, {0: b"o" * MIB})
    ready = shell.folder / "ready"
    server = subprocess.Popen(
        ["qemu-nbd", "-f", "raw", "-t", "-k", shell.folder / "nbd.sock", "--pid-file", ready, target]
    )
    try:
        deadline = time.monotonic() + 20
        while not ready.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        error = shell.json("copy", "--overwrite", "disk.raw", "busy.raw", status=2)
        assert error["code"] == "target_refused" and "in use" in error["message"]
        # Whoever reads it can not know for how long it stays as it is.
        done = shell.run("copy", "busy.raw", "read.raw")
        assert "changing while read" in done.stdout and "in use by another program" in done.stderr
    finally:
        server.terminate()
        server.wait()
    assert target.read_bytes()[:MIB] == b"o" * MIB
    assert shell.json("copy", "busy.raw", "again.raw")["consistency"] == "offline"
    shell.json("copy", "--overwrite", "disk.raw", "busy.raw")


def test_increments_send_what_changed(shell: Shell, disk: Path) -> None:
    first = shell.json("copy", "--state", "kept", "disk.raw", "copy.raw")
    assert not first["increment"] and first["state"] == "kept"
    write(disk, {MIB: noise(BLOCK, 3), 9 * MIB: bytes(BLOCK)})
    second = shell.json("copy", "--since", "kept", "--verify", "full", "disk.raw", "copy.raw")
    assert second["increment"] and second["sent_bytes"] == BLOCK and second["written_bytes"] == 2 * BLOCK
    assert same(disk, shell.folder / "copy.raw")
    third = shell.json("copy", "--since", "kept", "disk.raw", "copy.raw")
    assert third["increment"] and third["written_bytes"] == 0 and third["root"] == second["root"]


def test_a_target_that_something_else_wrote_to_is_copied_again(shell: Shell, disk: Path) -> None:
    shell.json("copy", "--state", "kept", "disk.raw", "copy.raw")
    write(shell.folder / "copy.raw", {5 * MIB: b"x"})
    done = shell.run("copy", "--since", "kept", "disk.raw", "copy.raw")
    assert done.returncode == 0 and "something wrote to the target" in done.stderr
    assert same(disk, shell.folder / "copy.raw")


def test_what_wrote_between_a_failure_and_its_repetition_is_noticed(
    shell: Shell, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.json("copy", "--state", "kept", "disk.raw", "copy.raw")
    write(disk, {9 * MIB: noise(MIB, 8)})

    def fail(*_: object) -> None:
        raise OSError(5, "no luck")

    with monkeypatch.context() as patch:
        patch.setattr("wavelift.agent.replication._Replication._finish", fail)
        shell.json("copy", "--since", "kept", "disk.raw", "copy.raw", status=2)
    write(shell.folder / "copy.raw", {MIB: b"x", 5 * MIB: b"y", 9 * MIB: b"z"})
    shell.json("copy", "--since", "kept", "disk.raw", "copy.raw")
    assert same(disk, shell.folder / "copy.raw")


def test_a_source_whose_time_of_writing_was_set_back_is_another(
    shell: Shell, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "no luck")

    with monkeypatch.context() as patch:
        patch.setattr("wavelift.agent.replication._Replication._finish", fail)
        shell.json("copy", "--state", "kept", "disk.raw", "copy.raw", status=2)
    before = disk.stat()
    write(disk, {MIB: noise(BLOCK, 9)})
    os.utime(disk, ns=(before.st_atime_ns, before.st_mtime_ns))
    shell.json("copy", "--state", "kept", "disk.raw", "copy.raw")
    assert same(disk, shell.folder / "copy.raw")


def test_a_state_that_does_not_fit_is_refused(shell: Shell, disk: Path) -> None:
    target = shell.folder / "copy.raw"
    other = shell.image("other.raw", SIZE, {0: noise(MIB, 7)})
    assert "no state" in shell.json("copy", "--since", "kept", "disk.raw", "copy.raw", status=2)["message"]
    assert not target.exists()
    shell.json("copy", "--state", "kept", "disk.raw", "copy.raw")
    for source, to, said in (
        ("other.raw", "copy.raw", "another source"),
        ("disk.raw", "else.raw", "another target"),
        ("nbd://127.0.0.1:1", "copy.raw", "source_unreadable"),
    ):
        error = shell.json("copy", "--since", "kept", source, to, status=2)
        assert said in (error["message"], error["code"]) or said in error["message"]
    assert "holds no state" in shell.json("copy", "--state", "tmp/..", "disk.raw", "else.raw", status=2)["message"]
    assert not (shell.folder / "else.raw").exists()
    # Another file under the same name is another target, to be overwritten only when told to.
    target.unlink()
    target.write_bytes(other.read_bytes())
    error = shell.json("copy", "--since", "kept", "disk.raw", "copy.raw", status=2)
    assert error["code"] == "state_unusable" and "--state" in error["remedy"]
    assert shell.json("copy", "--state", "kept", "disk.raw", "copy.raw", status=2)["code"] == "target_refused"
    assert same(other, target)
    target.unlink()
    shell.json("copy", "--state", "kept", "disk.raw", "copy.raw")
    assert same(disk, target)


def test_what_a_killed_copy_left_is_taken_away_and_what_is_in_use_is_not(shell: Shell, disk: Path) -> None:
    killed, running = (shell.start("copy", "--json", "--limit", "1M", "disk.raw", f"{n}.raw") for n in range(2))
    try:
        for process in (killed, running):
            assert process.stdout is not None and "copying" in process.stdout.readline()
        killed.kill()
        killed.communicate()
        assert len(shell.left()) == 2
        shell.json("copy", "disk.raw", "copy.raw")
        (left,) = shell.left()
        assert (shell.folder / "tmp" / left / "migrations").is_dir()
    finally:
        running.terminate()
        running.communicate()
    assert shell.left() == []


def test_a_bitmap_needs_a_copy_to_follow(shell: Shell, disk: Path) -> None:
    error = shell.json("copy", "--bitmap", "b0", "disk.raw", "copy.raw", status=2)
    assert error["code"] == "state_unusable" and "--since" in error["remedy"]
    assert not (shell.folder / "copy.raw").exists()


def test_no_room_is_said_and_no_half_of_a_disk_is_left(shell: Shell, tmp_path: Path, disk: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", full], check=True)
    try:
        error = shell.json("copy", "disk.raw", full / "copy.raw", status=2)
        assert error["code"] == "no_room" and str(full) in error["message"]
        assert not (full / "copy.raw").exists() and shell.left() == []
        error = shell.json("copy", "--state", "kept", "disk.raw", full / "copy.raw", status=2)
        assert error["code"] == "no_room"
        subprocess.run(["mount", "-o", "remount,size=32m", full], check=True)
        done = shell.json("copy", "--state", "kept", "disk.raw", full / "copy.raw")
        assert done["verified"] is None and same(disk, full / "copy.raw")
    finally:
        subprocess.run(["umount", full], check=True)


def test_wrong_usage(shell: Shell, disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = shell.run("copy", "disk.raw")
    assert done.returncode == 2 and "usage: wavelift copy" in done.stderr
    for option in (
        ("--compress", "zstd:99"),
        ("--compress", "lz4"),
        ("--state", "a", "--since", "b"),
        ("--verify", "some"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["copy", "--json", *option, str(disk), str(shell.folder / "copy.raw")])
        assert ended.value.code == 2 and not (shell.folder / "copy.raw").exists()
        out, err = capsys.readouterr()
        told = json.loads(out)
        assert (told["event"], told["code"], err) == ("error", "usage", "") and option[-2] in told["message"]


@pytest.mark.parametrize("command", ["copy", "map", "verify"])
def test_each_help_has_examples_and_the_exit_status(shell: Shell, command: str) -> None:
    done = shell.run(command, "--help")
    assert done.returncode == 0
    assert f"examples:\n  wavelift {command} " in done.stdout and "exit status: 0" in done.stdout


BLOCKS = 40
PLACES = st.lists(st.tuples(st.integers(0, BLOCKS * 128 - 1), st.integers(1, 300), st.booleans()), max_size=12)


@settings(max_examples=10, deadline=None)
@given(tail=st.integers(0, 127), first=PLACES, second=PLACES, old=PLACES)
def test_any_image_arrives_and_so_does_any_change(tail: int, first: list, second: list, old: list) -> None:  # type: ignore[type-arg]
    """Sectors written with noise or zeroes, wherever they fall; onto a target with a past."""
    size = BLOCKS * BLOCK + tail * 512

    def put(path: Path, places: list[tuple[int, int, bool]], seed: int) -> None:
        with path.open("r+b" if path.exists() else "w+b") as file:
            file.truncate(size)
            for sector, count, zero in places:
                length = max(0, min(count * 512, size - sector * 512))
                file.seek(sector * 512)
                file.write(bytes(length) if zero else noise(length, seed + sector))

    with tempfile.TemporaryDirectory() as folder:
        source, target, state = (Path(folder) / name for name in ("source", "target", "state"))
        put(source, first, 1)
        put(target, old, 2)
        full = ["copy", "--json", "--overwrite", "--state", str(state), str(source), str(target)]
        assert main(full) == 0 and source.read_bytes() == target.read_bytes()
        put(source, second, 3)
        assert main(["copy", "--json", "--since", str(state), "--verify", "full", str(source), str(target)]) == 0
        assert source.read_bytes() == target.read_bytes()


def killed(shell: Shell, *arguments: str) -> tuple[MigrationState, list[tuple[int, int]]]:
    """A copy to copy.raw, with the state `kept`, that is killed before its end, and what it says is done."""
    # As slow as it takes for the kill to come before the end.
    process = shell.start("copy", *arguments, "disk.raw", "copy.raw", "--limit", "30M")
    state = MigrationState(shell.folder / "kept", LocalTarget(shell.folder / "copy.raw").migration)
    deadline = time.monotonic() + 60
    while not (done := acknowledged(state)):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return state, done


@pytest.mark.parametrize("harm", ["none", "mark", "empty"])
def test_a_copy_killed_goes_on_where_it_was_unless_the_target_is_another_by_then(shell: Shell, harm: str) -> None:
    disk = shell.image("disk.raw", 90 * MIB, {at * MIB: noise(MIB, at) for at in range(0, 90, 3)})
    state, done = killed(shell, "--state", "kept")
    (begun,) = state.touched()
    target = shell.folder / "copy.raw"
    if harm == "mark":
        write(target, {done[0][1] - 1: b"x"})
    elif harm == "empty":
        target.write_bytes(b"")
    shell.json("copy", "--state", "kept", "disk.raw", "copy.raw")
    assert same(disk, target)
    committed = state.committed()
    assert committed is not None and (committed.generation == begun) is (harm == "none")


@pytest.mark.parametrize("harm", [False, True])
def test_an_increment_killed_goes_on_and_what_was_overwritten_is_sent(shell: Shell, harm: bool) -> None:
    disk = shell.image("disk.raw", 60 * MIB, {at * MIB: noise(MIB, at) for at in range(0, 60, 2)})
    shell.json("copy", "--state", "kept", "disk.raw", "copy.raw")
    write(disk, {at * MIB: noise(MIB, 99 + at) for at in range(0, 40, 2)})
    state, _ = killed(shell, "--since", "kept")
    if harm:
        # What the increment would not have looked at: not changed in the source.
        write(shell.folder / "copy.raw", {50 * MIB: b"x", 51 * MIB: b"y"})
    (begun,) = state.touched()
    done = shell.json("copy", "--since", "kept", "disk.raw", "copy.raw")
    assert done["increment"] and same(disk, shell.folder / "copy.raw")
    committed = state.committed()
    assert committed is not None and committed.generation == begun


def acknowledged(state: MigrationState) -> list[tuple[int, int]]:
    """(start, end) in bytes of what the journal of the copy under way says is done."""
    lines = [line for number in state.touched() for line in read_lines(state.journal(number))[1:]]
    return [(start, end) for line in lines for start, end in line["ranges"]]
