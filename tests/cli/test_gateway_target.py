"""`wavelift copy` to a volume of a real gateway, over TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.conftest import KEY, Service
from tests.cli.conftest import MIB, Shell, noise, same, write
from wavelift.blocks.digest import BLOCK
from wavelift.service import tokens

SIZE = 24 * MIB


class Gateway:
    def __init__(self, shell: Shell) -> None:
        self.folder = shell.folder
        devices = self.folder / "devices"
        devices.mkdir()
        self.volume = shell.image("volume.raw", SIZE, {3 * MIB: noise(9 * MIB, 9)})
        (devices / "virtio-v1").symlink_to(self.volume)
        (self.folder / "key").write_text(KEY)
        self.service = Service(
            "gateway",
            self.folder,
            *("--state", str(self.folder / "gw"), "--devices", str(devices), "--key-file", str(self.folder / "key")),
        )
        self.target = f"{self.service.url}/d-v1"
        self.pinned = ("--fingerprint", self.service.fingerprint)
        self.write = self.token("write", "write")
        self.control = self.token("control", "control")

    def token(self, name: str, scope: tokens.Scope, lifetime: float = 600, volume: str = "d-v1") -> Path:
        path = self.folder / f"{name}.token"
        path.write_text(tokens.issue(KEY, migration="web", scope=scope, volumes=[volume], lifetime=lifetime) + "\n")
        return path


@pytest.fixture
def gateway(shell: Shell) -> Iterator[Gateway]:
    found = Gateway(shell)
    yield found
    found.service.stop()


@pytest.fixture
def disk(shell: Shell) -> Path:
    return shell.image("disk.raw", SIZE, {0: noise(MIB), 5 * MIB: noise(3 * MIB, 1)})


def test_a_volume_is_written_verified_mended_and_kept_up(shell: Shell, gateway: Gateway, disk: Path) -> None:
    both = ("--token-file", gateway.control, "--token-file", gateway.write, *gateway.pinned)
    done = shell.run("copy", "--state", "kept", "--verify", "full", *both, "disk.raw", gateway.target)
    assert done.returncode == 0 and "read back and has this root" in done.stdout, done.stderr
    assert same(disk, gateway.volume)
    write(gateway.volume, {6 * MIB: b"flipped"})
    write(disk, {0: noise(BLOCK, 2)})
    found = shell.json("copy", "--since", "kept", "--verify", "full", *both, "disk.raw", gateway.target, status=1)
    assert found["sent_bytes"] == BLOCK and found["wrong_ranges"] == [[6 * MIB, 6 * MIB + BLOCK]]
    mended = shell.json("copy", "--since", "kept", "--verify", "full", *both, "disk.raw", gateway.target)
    assert mended["sent_bytes"] == BLOCK and same(disk, gateway.volume)
    # Few enough blocks that the sample is all of them.
    write(gateway.volume, {7 * MIB: b"damage"})
    sampled = shell.json("copy", "--since", "kept", "--verify", "sample", *both, "disk.raw", gateway.target, status=1)
    assert sampled["sent_bytes"] == 0 and sampled["wrong_ranges"] == [[7 * MIB, 7 * MIB + BLOCK]]
    mended = shell.json("copy", "--since", "kept", "--verify", "sample", *both, "disk.raw", gateway.target)
    assert mended["sent_bytes"] == BLOCK and same(disk, gateway.volume)
    # Blocks that the volume holds elsewhere are not sent.
    write(disk, {16 * MIB: disk.read_bytes()[5 * MIB : 8 * MIB]})
    moved = shell.json("copy", "--since", "kept", *both, "disk.raw", gateway.target)
    assert moved["deduped_bytes"] == 3 * MIB and moved["sent_bytes"] == 0 and same(disk, gateway.volume)


def test_what_is_not_allowed_is_said_before_anything_is_sent(shell: Shell, gateway: Gateway, disk: Path) -> None:
    before = gateway.volume.read_bytes()
    given = ("--token-file", gateway.write)

    def refused(*arguments: str | Path, target: str = gateway.target) -> tuple[str, str]:
        error = shell.json("copy", *arguments, "disk.raw", target, status=2)
        return error["code"], error["message"] + error["remedy"]

    cases: list[tuple[tuple[str, str], str, str]] = [
        (refused(*gateway.pinned), "token_missing", "write token"),
        (refused("--token-file", gateway.control, *gateway.pinned), "token_missing", "write token"),
        (refused(*given), "target_refused", "--fingerprint"),
        (
            refused(*given, *gateway.pinned, target=gateway.target.replace("https", "http")),
            "target_refused",
            "over http",
        ),
        (refused(*given, "--fingerprint", "ab" * 32), "wrong_fingerprint", gateway.service.fingerprint),
        (refused(*given, *gateway.pinned, "--verify", "full"), "token_missing", "control token"),
        (refused(*given, *gateway.pinned, "--verify", "sample"), "token_missing", "control token"),
        (refused(*given, *gateway.pinned, target=gateway.service.url), "target_refused", "VOLUME"),
        (refused(*given, *gateway.pinned, target=f"{gateway.service.url}/d-v2"), "sink_unauthorized", "d-v2"),
        (refused("--token-file", disk, *gateway.pinned), "target_refused", "no token"),
        (
            refused("--token-file", gateway.token("late", "write", lifetime=-5), *gateway.pinned),
            "sink_unauthorized",
            "expired",
        ),
    ]
    for (code, said), wanted, part in cases:
        assert code == wanted and part in said, (code, said)
    assert gateway.volume.read_bytes() == before and shell.left() == []


def test_a_disk_that_does_not_fit_is_refused_by_the_gateway(shell: Shell, gateway: Gateway) -> None:
    shell.image("large.raw", SIZE + MIB, {0: noise(MIB)})
    arguments = ("--token-file", gateway.write, *gateway.pinned, "large.raw", gateway.target)
    assert shell.json("copy", *arguments, status=2)["code"] == "volume_too_small"


def test_what_was_read_back_once_is_read_back_again(
    shell: Shell, gateway: Gateway, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ("--token-file", gateway.control, "--token-file", gateway.write, *gateway.pinned)

    def lost(*_: object) -> None:
        raise OSError(5, "the state's disk failed")

    for how in ("full", "sample"):
        given = ("copy", "--state", how, "--verify", how, *both, "disk.raw", gateway.target)
        with monkeypatch.context() as patch:
            patch.setattr("wavelift.cli.copystate.CopyState.ended", lost)
            assert shell.json(*given, status=2)["code"] == "io"
        # The same generation is verified again, and by now it is not there any more.
        write(gateway.volume, {at * MIB: b"flipped" for at in (5, 6)})
        found = shell.json(*given, status=1)
        assert found["wrong_ranges"] == [[at * MIB, at * MIB + BLOCK] for at in (5, 6)]


def test_what_another_copy_overwrote_is_no_base_and_no_half_of_a_copy(
    shell: Shell, gateway: Gateway, disk: Path
) -> None:
    def copy(*arguments: str | Path, status: int = 0) -> dict[str, Any]:
        return shell.json("copy", "--token-file", gateway.write, *gateway.pinned, *arguments, status=status)

    other = shell.image("other.raw", SIZE, {0: noise(MIB, 7), 9 * MIB: noise(MIB, 8)})
    copy("--state", "kept", "disk.raw", gateway.target)
    copy("other.raw", gateway.target)
    assert same(other, gateway.volume)
    write(disk, {0: noise(BLOCK, 2)})
    assert not copy("--since", "kept", "disk.raw", gateway.target)["increment"]
    assert same(disk, gateway.volume)
    gateway.service.stop()
    gateway.service.start()
    write(disk, {0: noise(BLOCK, 3)})
    assert copy("--since", "kept", "disk.raw", gateway.target)["increment"] and same(disk, gateway.volume)
    # One that failed, and whose volume another copy took then, with a later generation of the same migration.
    write(disk, {MIB: noise(MIB, 4)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wavelift.agent.replication._Replication._finish", lambda *_: 1 / 0)
        copy("--since", "kept", "disk.raw", gateway.target, status=2)
    copy("other.raw", gateway.target)
    assert not copy("--state", "kept", "disk.raw", gateway.target)["increment"]
    assert same(disk, gateway.volume)


def test_a_gateway_that_goes_away_is_said_while_it_is_tried_again(shell: Shell, gateway: Gateway, disk: Path) -> None:
    given = ("--token-file", gateway.write, *gateway.pinned, "--limit", "1M", "--compress", "off", "--json")
    process = shell.start("copy", *given, "disk.raw", gateway.target)
    assert process.stdout is not None and "copying" in process.stdout.readline()
    gateway.service.stop()
    while "note" not in (line := process.stdout.readline()):
        assert line
    assert "cannot be reached" in line
    process.terminate()
    assert process.communicate()[1] == "" and process.returncode == 143


def test_a_gateway_that_is_not_there_is_said_at_once(shell: Shell, gateway: Gateway, disk: Path) -> None:
    gateway.service.stop()
    error = shell.json("copy", "--token-file", gateway.write, *gateway.pinned, "disk.raw", gateway.target, status=2)
    assert error["code"] == "sink_unreachable" and "refused" in error["message"] and shell.left() == []
