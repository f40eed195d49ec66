"""The command as a process: killed in the middle, started again, ended politely."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.localcloud.servers import Launcher, Server, setting
from wavelift.localcloud.entities import Busy, Disk, Snapshot, new_id
from wavelift.localcloud.runtimes import processes
from wavelift.localcloud.runtimes.accelerator import boot_sector
from wavelift.localcloud.states import DiskStatus
from wavelift.localcloud.store import Store


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    launcher = Launcher(tmp_path / "state")
    yield launcher
    launcher.close()


def test_killed_and_started_again(launcher: Launcher) -> None:
    server, ecs = launcher.start("--profile", "fast")
    host = ecs.run_host("echo started; exec sleep 600")
    disk_id = ecs.new_disk()
    ecs.attach(disk_id, host)
    with (launcher.state / "disks" / f"{disk_id}.raw").open("r+b") as file:
        file.write(boot_sector("machine speaks"))
    image = ecs.new_image(ecs.new_snapshot(disk_id))
    machine, doomed = ecs.run(image), ecs.run(image)
    for instance_id in (machine, doomed):
        ecs.wait(ecs.instance, instance_id, "Running")
    before = {name: processes.marked(name) for name in (host, machine, doomed)}
    left = {
        "disk": ecs.call("create_disk", zone_id="cn-local-a", size=5)["DiskId"],
        "snapshot": ecs.call("create_snapshot", disk_id=disk_id, client_token="t")["SnapshotId"],
        "starting": ecs.run("host-linux", "echo late; exec sleep 600"),
    }
    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    for pid in before[doomed]:
        os.kill(pid, signal.SIGKILL)

    server, ecs = launcher.start()
    assert ecs.instance(host)["Status"] == ecs.instance(machine)["Status"] == "Running"
    ecs.wait(ecs.instance, doomed, "Stopped")
    assert {name: processes.marked(name) for name in (host, machine)} == {
        name: before[name] for name in (host, machine)
    }
    ecs.wait(ecs.disk, left["disk"], "Available")
    ecs.wait(ecs.snapshot, left["snapshot"], "accomplished")
    ecs.wait(ecs.instance, left["starting"], "Running")
    assert ecs.call("create_snapshot", disk_id=disk_id, client_token="t")["SnapshotId"] == left["snapshot"]
    assert ecs.console(host).count("started") == 1
    ecs.wait_console(machine, "machine speaks")
    ecs.call("get_instance_screenshot", instance_id=machine)  # its control socket is in use again
    ecs.call("start_instance", instance_id=doomed)
    ecs.wait(ecs.instance, doomed, "Running")
    ecs.release(machine)
    assert not processes.marked(machine)

    sockets = setting(launcher.state, "sockets")
    assert sockets.is_dir()
    assert server.end(signal.SIGTERM) == 0
    assert not sockets.exists()
    assert not any(processes.marked(name) for name in (host, doomed, left["starting"]))
    server, ecs = launcher.start()
    assert ecs.instance(host)["Status"] == ecs.instance(doomed)["Status"] == "Stopped"


def test_operations_under_way_keep_the_time_they_end_at(launcher: Launcher) -> None:
    server, ecs = launcher.start("--profile", "realistic")
    disk_id = ecs.call("create_disk", zone_id="cn-local-a", size=5)["DiskId"]
    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    later = put_off(launcher.state, disk_id)
    server, ecs = launcher.start("--profile", "fast")
    ecs.new_disk()
    disk = kept(launcher.state, disk_id)
    assert disk.status is DiskStatus.CREATING and disk.busy == later


def test_a_copy_cut_short_is_made_again(launcher: Launcher) -> None:
    """What a kill in the middle of a copy leaves: the snapshot is noted, its file is not there, the host is frozen."""
    server, ecs = launcher.start()
    host = ecs.run_host()
    disk_id = ecs.new_disk()
    ecs.attach(disk_id, host)
    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    processes.freeze(host)
    snapshot_id = note_snapshot(launcher.state, disk_id)
    partial = launcher.state / "snapshots" / f"{snapshot_id}.partial"
    partial.write_bytes(b"half")
    _, ecs = launcher.start()
    ecs.wait(ecs.snapshot, snapshot_id, "accomplished")
    assert not partial.exists() and partial.with_suffix(".raw").stat().st_size == 1024**3
    states = {(Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] for pid in marked(host)}
    assert "T" not in states


def marked(instance: str) -> list[int]:
    found = processes.marked(instance)
    assert found
    return found


def kept(state: Path, disk_id: str) -> Disk:
    with closing(sqlite3.connect(state / "state.sqlite")) as connection:
        (body,) = connection.execute("SELECT body FROM entity WHERE id = ?", (disk_id,)).fetchone()
    return Disk.model_validate_json(body)


def put_off(state: Path, disk_id: str) -> Busy:
    """By an hour, so that no restart takes too long for it."""
    disk = kept(state, disk_id)
    assert disk.busy is not None and disk.busy.due - disk.busy.started == pytest.approx(5)
    disk.busy = Busy(started=disk.busy.started, due=disk.busy.due + 3600)
    store = Store(state / "state.sqlite")
    with store.transaction() as tx:
        tx.put(disk)
    store.close()
    return disk.busy


def note_snapshot(state: Path, disk_id: str) -> str:
    store = Store(state / "state.sqlite")
    snapshot = Snapshot(id=new_id("s-"), created=time.time(), disk=disk_id, disk_size=1, disk_type="data")
    with store.transaction() as tx:
        tx.put(snapshot)
    store.close()
    return snapshot.id


def test_one_server_per_state(launcher: Launcher) -> None:
    launcher.start()
    command = [sys.executable, "-m", "wavelift.localcloud.command", "--state", str(launcher.state)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert second.returncode == 1 and "another local cloud runs on" in second.stderr


def test_only_a_state_folder_is_needed(tmp_path: Path, ecs: Any) -> None:
    state = tmp_path / "state"
    server = Server(state)
    try:
        assert set(server.hello) >= {"endpoint", "region", "access_key_id"} and server.hello["region"] == "cn-local"
        file = state / "access-key.json"
        assert file.stat().st_mode & 0o077 == 0
        key = json.loads(file.read_text())
        mine = type(ecs)(server.hello["endpoint"], key["access_key_id"], key["access_key_secret"])
        assert mine.call("describe_regions")["Regions"]["Region"][0]["RegionId"] == "cn-local"
    finally:
        assert server.end(signal.SIGTERM) == 0
    hint = (tmp_path / "stderr").read_text()
    assert server.hello["endpoint"] in hint and key["access_key_secret"] not in hint


def test_what_ran_for_a_state_that_is_gone_is_ended(launcher: Launcher) -> None:
    server, ecs = launcher.start()
    host = ecs.run_host()
    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    assert processes.marked(host)
    shutil.rmtree(setting(launcher.state, "sockets"))
    for left in launcher.state.glob("state.sqlite*"):
        left.unlink()
    launcher.start()
    assert not processes.marked(host)


def test_a_command_goes_on_after_a_kill(launcher: Launcher, tmp_path: Path) -> None:
    server, ecs = launcher.start()
    host = ecs.run_host()
    gate = tmp_path / "gate"
    script = f"while ! [ -e {gate} ]; do sleep 0.05; done; echo through"
    fields = {"type": "RunShellScript", "content_encoding": "PlainText", "command_content": script}
    invoke_id = ecs.call("run_command", instance_id=[host], **fields)["InvokeId"]
    deadline = time.monotonic() + 20
    while not written_down(launcher.state, invoke_id):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    gate.touch()
    _, ecs = launcher.start()
    assert ecs.result(invoke_id)["Output"] == "through\n"
    ecs.release(host)


def written_down(state: Path, invoke_id: str) -> bool:
    """Does the store know the command's process?"""
    with closing(sqlite3.connect(state / "state.sqlite")) as connection:
        (body,) = connection.execute("SELECT body FROM entity WHERE id = ?", (invoke_id,)).fetchone()
    return bool(json.loads(body)["executions"][0]["pid"])
