"""The gateway's data port over real sockets, and its jobs."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.blocks import reader
from wavelift.blocks.digest import BLOCK, digests
from wavelift.blocks.pack import END_SIZE, PackDisk, PackHeader, PackWriter
from wavelift.blocks.throttle import Throttle
from wavelift.gateway.data import DataServer
from wavelift.gateway.jobs import GatewayJobs, PrepareSpec, VerifySpec
from wavelift.gateway.readbacks import ReadBacks
from wavelift.gateway.volumes import Volume, VolumeNotAttached, Volumes
from wavelift.pinning import pinned_context
from wavelift.service import tokens
from wavelift.service.job_store import JobStore
from wavelift.service.jobs import JobState, JobStatus
from wavelift.service.runner import JobKind, JobRunner
from wavelift.service.server import listen
from wavelift.service.tls import service_identity

KEY = "k" * 40
SIZE = 4 << 20


def make_pack(
    data: bytes, offset: int = 0, volume: str = "d-v1", size: int = SIZE, sequence: int = 1, generation: int = 1
) -> bytes:
    return make_packs([(offset, data)], volume, size, sequence, generation)


def make_packs(
    parts: list[tuple[int, bytes]], volume: str = "d-v1", size: int = SIZE, sequence: int = 1, generation: int = 1
) -> bytes:
    header = PackHeader("web", generation, sequence, (PackDisk("sda", volume, size),))
    writer = PackWriter(bytearray(4 << 20), header)
    for offset, data in parts:
        view = writer.slot(len(data))
        view[:] = data
        writer.add_data(0, offset, view, digests(view))
    return bytes(writer.finish())


class Gateway:
    def __init__(self, folder: Path) -> None:
        self.devices = folder / "devices"
        self.devices.mkdir()
        self.volume = folder / "vdb"
        self.volume.write_bytes(b"o" * SIZE)
        self.link = self.devices / "virtio-v1"
        self.link.symlink_to(self.volume)
        self.volumes = Volumes(self.devices, folder / "owners", ReadBacks(folder / "readbacks"))
        self.throttle = Throttle()
        identity = service_identity(folder)
        self.data = DataServer(listen("127.0.0.1:0"), self.volumes, self.throttle, KEY, identity)
        self.data.start()
        self.tls = pinned_context(identity.fingerprint)
        self.connection = self.connect()

    def connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", self.data.port, timeout=20, context=self.tls)

    def dial(self) -> ssl.SSLSocket:
        return self.tls.wrap_socket(socket.create_connection(("127.0.0.1", self.data.port), timeout=20))

    def put(self, pack: bytes, volume: str = "d-v1", token: str | None = None, path: str = "") -> tuple[int, Any]:
        token = token or tokens.issue(KEY, migration="web", scope="write", volumes=["d-v1"], lifetime=60)
        path = path or f"/v1/volumes/{volume}/generations/1/packs/1"
        self.connection.request("PUT", path, body=pack, headers={"Authorization": f"Bearer {token}"})
        response = self.connection.getresponse()
        return response.status, json.loads(response.read())

    def close(self) -> None:
        self.connection.close()
        self.data.shutdown()
        self.data.server_close()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path)
    yield gateway
    gateway.close()


def test_a_pack_is_written_and_twice_does_no_harm(gateway: Gateway) -> None:
    data = os.urandom(3 * BLOCK)
    pack = make_pack(data, BLOCK)
    for _ in range(2):
        status, receipt = gateway.put(pack)
        assert receipt.pop("busy_seconds") > 0
        assert (status, receipt) == (200, {"blocks": 3, "bytes": 3 * BLOCK, "wire_bytes": len(pack)})
    content = gateway.volume.read_bytes()
    assert content == b"o" * BLOCK + data + b"o" * (SIZE - 4 * BLOCK)
    assert gateway.data.packs_received == 2


def test_a_corrupt_pack_is_refused_with_disk_and_offset(gateway: Gateway) -> None:
    pack = bytearray(make_pack(os.urandom(3 * BLOCK), BLOCK))
    pack[-END_SIZE - 32 - BLOCK - 9] ^= 1
    status, body = gateway.put(bytes(pack))
    assert (status, body["error"]["code"]) == (422, "corrupt")
    assert "disk sda" in body["error"]["message"] and str(2 * BLOCK) in body["error"]["message"]
    assert gateway.volume.read_bytes() == b"o" * SIZE and gateway.data.packs_received == 0
    # The connection is still good for the next one.
    assert gateway.put(make_pack(b"x" * BLOCK))[0] == 200


def test_who_may_write_where(gateway: Gateway) -> None:
    pack = make_pack(b"x" * BLOCK)

    def issue(**change: Any) -> str:
        given: dict[str, Any] = {"migration": "web", "scope": "write", "volumes": ["d-v1"], "lifetime": 60}
        return tokens.issue(KEY, **{**given, **change})

    for token, status, code in (
        ("nonsense", 401, "unauthorized"),
        (issue(lifetime=-5), 401, "unauthorized"),
        (issue(volumes=["d-v2"]), 403, "forbidden"),
        (issue(volumes=[]), 403, "forbidden"),
        (issue(scope="control"), 403, "forbidden"),
        (issue(migration="other"), 403, "forbidden"),
    ):
        got, body = gateway.put(pack, token=token)
        assert (got, body["error"]["code"]) == (status, code) and token not in str(body)
    gateway.connection.request("PUT", "/v1/volumes/d-v1/generations/1/packs/1", body=pack)
    assert gateway.connection.getresponse().status == 401
    gateway.connection.close()
    assert gateway.volume.read_bytes() == b"o" * SIZE


def test_what_does_not_belong_is_refused(gateway: Gateway) -> None:
    both = tokens.issue(KEY, migration="web", scope="write", volumes=["d-v1", "d-v2", "../vdb"], lifetime=60)
    pack = make_pack(b"x" * BLOCK)
    assert gateway.put(make_pack(b"x" * BLOCK, volume="d-v2"), token=both)[1]["error"]["code"] == "invalid"
    assert gateway.put(make_pack(b"x" * BLOCK, sequence=2))[1]["error"]["code"] == "invalid"
    assert gateway.put(make_pack(b"x" * BLOCK, size=2 * SIZE))[1]["error"]["code"] == "volume_too_small"
    gone = make_pack(b"x" * BLOCK, volume="d-v2")
    assert gateway.put(gone, volume="d-v2", token=both)[1]["error"]["code"] == "volume_not_attached"
    outside = make_pack(b"x" * BLOCK, volume="../vdb")
    assert gateway.put(outside, volume="..%2Fvdb", token=both)[1]["error"]["code"] == "volume_not_attached"
    assert gateway.put(pack, path="/v1/nothing")[0] == 404
    assert gateway.put(b"not a pack")[1]["error"]["code"] == "corrupt"
    assert gateway.put(b"not a pack" * 10)[1]["error"]["code"] == "bad_pack"
    assert gateway.volume.read_bytes() == b"o" * SIZE


def test_a_volume_detached_midway_is_not_written_as_if_it_were_there(gateway: Gateway) -> None:
    pack = make_pack(os.urandom(8 * BLOCK))
    token = tokens.issue(KEY, migration="web", scope="write", volumes=["d-v1"], lifetime=60)
    with gateway.dial() as peer:
        head = f"PUT /v1/volumes/d-v1/generations/1/packs/1 HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {token}\r\n"
        peer.sendall(f"{head}Content-Length: {len(pack)}\r\n\r\n".encode() + pack[:-10])
        deadline = time.monotonic() + 10
        while gateway.volume.read_bytes()[:BLOCK] == b"o" * BLOCK:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        gateway.link.unlink()
        peer.sendall(pack[-10:])
        answer = peer.recv(4096)
    assert b"404" in answer.split(b"\r\n")[0] and b"volume_not_attached" in answer
    # Attached again, under another letter.
    moved = gateway.volume.rename(gateway.volume.with_name("vdc"))
    gateway.link.symlink_to(moved)
    assert gateway.put(pack)[0] == 200 and moved.read_bytes()[: 8 * BLOCK] == pack[-END_SIZE - 8 * BLOCK : -END_SIZE]


def test_a_path_that_came_to_lead_to_another_volume_is_not_written(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = gateway.volumes.find
    moved = gateway.volume.with_name("vdc")

    def found_then_moved(volume: str) -> Volume:
        found = find(volume)
        if not moved.exists():
            # Between look-up and opening: the volume comes back under another letter, a foreign one takes its own.
            gateway.volume.rename(moved)
            gateway.volume.write_bytes(b"f" * SIZE)
            gateway.link.unlink()
            gateway.link.symlink_to(moved)
        return found

    monkeypatch.setattr(gateway.volumes, "find", found_then_moved)
    pack = make_pack(b"x" * BLOCK)
    status, body = gateway.put(pack)
    assert (status, body["error"]["code"]) == (404, "volume_not_attached")
    assert gateway.volume.read_bytes() == b"f" * SIZE and moved.read_bytes() == b"o" * SIZE
    assert gateway.put(pack)[0] == 200 and moved.read_bytes()[:BLOCK] == b"x" * BLOCK


def test_partitions_are_no_volumes(gateway: Gateway) -> None:
    for number in (1, 15):
        (gateway.devices / f"virtio-v1-part{number}").symlink_to(gateway.volume)
    assert [volume.id for volume in gateway.volumes.all()] == ["d-v1"]
    with pytest.raises(VolumeNotAttached):
        gateway.volumes.find("d-v1-part1")


class Stalled:
    """A sender that stops before the last `rest` bytes of its pack, once the rest is written."""

    def __init__(self, gateway: Gateway, pack: bytes, rest: int) -> None:
        token = tokens.issue(KEY, migration="web", scope="write", volumes=["d-v1"], lifetime=60)
        self._peer = gateway.dial()
        head = f"PUT /v1/volumes/d-v1/generations/1/packs/1 HTTP/1.1\r\nAuthorization: Bearer {token}\r\n"
        self._peer.sendall(f"{head}Content-Length: {len(pack)}\r\n\r\n".encode() + pack[:-rest])
        self._rest = pack[-rest:]
        deadline = time.monotonic() + 10
        while gateway.volume.read_bytes()[:1] == b"o":
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def finish(self) -> bytes:
        with self._peer:
            self._peer.sendall(self._rest)
            return self._peer.recv(4096)


VERIFY = {
    "kind": "verify",
    "migration": "web",
    "generation": 1,
    "disks": [{"disk": "sda", "volume": "d-v1", "size": SIZE}],
}


def test_a_verification_waits_for_open_packs_and_keeps_new_ones_away(gateway: Gateway, tmp_path: Path) -> None:
    parts = [(0, b"x" * BLOCK), (BLOCK, b"y" * BLOCK)]
    stalled = Stalled(gateway, make_packs(parts), BLOCK)
    store = JobStore(tmp_path / "jobs.db")
    runner = JobRunner(
        store, [JobKind("verify", VerifySpec, GatewayJobs(gateway.volumes, ReadBacks(tmp_path / "readbacks")).verify)]
    )
    runner.start()
    try:
        runner.submit("web/1/cancelled", VERIFY)
        runner.submit("web/1/verify", VERIFY)
        deadline = time.monotonic() + 10
        while any(runner.get(f"web/1/{step}").step != "waiting" for step in ("cancelled", "verify")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert runner.cancel("web/1/cancelled").state is JobState.CANCELLED
        status, body = gateway.put(make_pack(b"z" * BLOCK))
        assert (status, body["error"]["code"]) == (503, "volume_busy")
        assert runner.get("web/1/verify").step == "waiting"
        assert b"200" in stalled.finish().split(b"\r\n")[0]
        while (job := runner.get("web/1/verify")).state is not JobState.SUCCEEDED:
            assert time.monotonic() < deadline and job.state is JobState.RUNNING, job
            time.sleep(0.01)
    finally:
        runner.stop()
        store.close()
    assert gateway.volume.read_bytes()[: 3 * BLOCK] == b"x" * BLOCK + b"y" * BLOCK + b"o" * BLOCK
    assert job.result is not None
    assert job.result["disks"][0]["root"] == reader.disk_root(gateway.volume, SIZE).hex()
    assert gateway.put(make_pack(b"z" * BLOCK))[0] == 200


def test_a_pack_of_an_older_generation_is_refused_also_when_it_stalled(gateway: Gateway) -> None:
    stalled = Stalled(gateway, make_packs([(0, b"x" * BLOCK), (BLOCK, b"y" * BLOCK)]), BLOCK)
    newer = make_pack(b"n" * 2 * BLOCK, generation=2)
    assert gateway.put(newer, path="/v1/volumes/d-v1/generations/2/packs/1")[0] == 200
    answer = stalled.finish()
    assert b"409" in answer.split(b"\r\n")[0] and b"stale_generation" in answer
    status, body = gateway.put(make_pack(b"x" * BLOCK))
    assert (status, body["error"]["code"]) == (409, "stale_generation")
    assert gateway.volume.read_bytes()[: 2 * BLOCK] == b"n" * 2 * BLOCK
    assert gateway.put(newer, path="/v1/volumes/d-v1/generations/2/packs/1")[0] == 200


def test_many_idle_connections_keep_no_memory(gateway: Gateway) -> None:
    """A scratch of 1 MiB each would be 100 MiB."""
    token = tokens.issue(KEY, migration="web", scope="write", volumes=["d-v1"], lifetime=60)
    pack = make_pack(os.urandom(1 << 20))
    before = psutil.Process().memory_info().rss
    connections = []
    for _ in range(100):
        connection = gateway.connect()
        path = "/v1/volumes/d-v1/generations/1/packs/1"
        connection.request("PUT", path, body=pack, headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        assert (response.status, len(response.read()) > 0) == (200, True)
        connections.append(connection)
    grown = psutil.Process().memory_info().rss - before
    assert gateway.data.connections >= 100
    for connection in connections:
        connection.close()
    assert grown < 50 << 20, grown


def test_an_abandoned_pack_frees_its_place(gateway: Gateway) -> None:
    token = tokens.issue(KEY, migration="web", scope="write", volumes=["d-v1"], lifetime=60)
    pack = make_pack(b"x" * BLOCK)
    for _ in range(10):
        with gateway.dial() as peer:
            head = f"PUT /v1/volumes/d-v1/generations/1/packs/1 HTTP/1.1\r\nAuthorization: Bearer {token}\r\n"
            peer.sendall(f"{head}Content-Length: {len(pack)}\r\n\r\n".encode() + pack[:100])
    assert gateway.put(pack)[0] == 200


@pytest.mark.parametrize("punch", [True, False])
def test_zeroes_overwrite_and_free_the_space(gateway: Gateway, punch: bool) -> None:
    with gateway.volumes.writing("d-v1") as writer:
        writer.zero(BLOCK, 2 * BLOCK)
        if not punch:
            writer.write_zeroes(4 * BLOCK, 20 * BLOCK)
    content = gateway.volume.read_bytes()
    assert content[:BLOCK] == b"o" * BLOCK and content[BLOCK : 3 * BLOCK] == bytes(2 * BLOCK)
    if not punch:
        assert content[4 * BLOCK : 24 * BLOCK] == bytes(20 * BLOCK) and content[24 * BLOCK :].strip(b"o") == b""
    assert gateway.volume.stat().st_blocks * 512 <= SIZE - 2 * BLOCK + 8192


GUEST = """
import json, sys, time
print("noise that is no event", flush=True)
print(json.dumps({"event": "progress", "step": "inspecting", "fraction": 0.5}), flush=True)
if sys.argv[1] == "fail":
    print(json.dumps({"event": "error", "code": "no_kernel", "message": "None.", "remedy": "Add one."}), flush=True)
    sys.exit(1)
if sys.argv[1] == "die":
    print("something broke", file=sys.stderr)
    sys.exit(0)
if sys.argv[1] == "hang":
    import subprocess
    child = subprocess.Popen(["sleep", "300"])
    print(json.dumps({"event": "progress", "step": str(child.pid), "fraction": 0.6}), flush=True)
    time.sleep(300)
assert sys.argv[2] == "--wishes"
wishes = json.loads(sys.stdin.read())
print(json.dumps({"event": "report", "paths": sys.argv[3:], "hostname": wishes["hostname"]}), flush=True)
"""


class Prepare:
    def __init__(self, gateway: Gateway, folder: Path, mode: str) -> None:
        jobs = GatewayJobs(gateway.volumes, ReadBacks(folder / "readbacks"), [sys.executable, "-c", GUEST, mode])
        self.store = JobStore(folder / "jobs.db")
        self.runner = JobRunner(self.store, [JobKind("prepare", PrepareSpec, jobs.prepare)])
        self.runner.start()
        disks = [{"disk": "sda", "volume": "d-v1"}]
        spec = {"kind": "prepare", "migration": "web", "generation": 1, "disks": disks, "wishes": {"hostname": "web-2"}}
        self.runner.submit("web/1/prepare", spec)

    def wait(self, *states: JobState, step: str = "") -> JobStatus:
        deadline = time.monotonic() + 20
        while True:
            job = self.runner.get("web/1/prepare")
            if job.state in states and (not step or job.step.isdigit()):
                return job
            assert time.monotonic() < deadline, job
            time.sleep(0.02)

    def close(self) -> None:
        self.runner.stop()
        self.store.close()


@pytest.mark.parametrize(
    ("mode", "state", "code"),
    [
        ("work", JobState.SUCCEEDED, None),
        ("fail", JobState.FAILED, "no_kernel"),
        ("die", JobState.FAILED, "prepare_failed"),
    ],
)
def test_prepare_hands_on_what_the_guest_part_says(
    gateway: Gateway, tmp_path: Path, mode: str, state: JobState, code: str | None
) -> None:
    prepare = Prepare(gateway, tmp_path, mode)
    job = prepare.wait(JobState.SUCCEEDED, JobState.FAILED)
    prepare.close()
    assert job.state is state and job.step == "inspecting"
    assert (job.error.code if job.error else None) == code
    if state is JobState.SUCCEEDED:
        assert job.result == {"paths": [str(gateway.volume)], "hostname": "web-2"}
    if mode == "die":
        assert job.error is not None and "something broke" in job.error.message


def test_cancelling_a_preparation_ends_what_it_started(gateway: Gateway, tmp_path: Path) -> None:
    prepare = Prepare(gateway, tmp_path, "hang")
    grandchild = int(prepare.wait(JobState.RUNNING, step="pid").step)
    assert psutil.pid_exists(grandchild)
    assert prepare.runner.cancel("web/1/prepare").state is JobState.CANCELLED
    prepare.close()
    gone = not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE
    assert gone


def test_several_packs_at_once(gateway: Gateway) -> None:
    data = os.urandom(SIZE)
    results: list[int] = []

    def send(index: int) -> None:
        connection = gateway.connect()
        token = tokens.issue(KEY, migration="web", scope="write", volumes=["d-v1"], lifetime=60)
        part = 16 * BLOCK
        for offset in range(index * part, SIZE, 4 * part):
            pack = make_pack(data[offset : offset + part], offset)
            path = "/v1/volumes/d-v1/generations/1/packs/1"
            connection.request("PUT", path, body=pack, headers={"Authorization": f"Bearer {token}"})
            response = connection.getresponse()
            response.read()
            results.append(response.status)
        connection.close()

    threads = [threading.Thread(target=send, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [200] * 4 and gateway.volume.read_bytes() == data
