"""A real agent and a real gateway as processes on loopback, with files as disks and volumes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from wavelift.service import tokens
from wavelift.service.client import ServiceClient
from wavelift.service.jobs import JobState, JobStatus

KEY = "0123456789abcdef" * 4
SECRET = "agent-secret-of-the-test"
MIGRATION = "web"
MIB = 1 << 20


class Service:
    """One `wavelift` process; `url` once it listens."""

    def __init__(self, name: str, folder: Path, *arguments: str) -> None:
        self._command = [sys.executable, "-m", "wavelift.cli.main", name, *arguments]
        self._log = folder / f"{name}.log"
        self.address = "127.0.0.1:0"
        self.url = self.fingerprint = ""
        self.start()

    def start(self) -> None:
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [*self._command, "--listen", self.address], stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(15)
        assert line, self.log()
        said = json.loads(line)
        # Empty for one that was told to do without TLS.
        self.url, self.fingerprint = said["url"], said.get("fingerprint", "")
        # A restart listens at the same address, as the descriptors name it.
        self.address = self.url.partition("://")[2]

    def client(self, token: str) -> ServiceClient:
        return ServiceClient(self.url, token, self.fingerprint)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(15) == 0, self.log()

    def log(self) -> str:
        return self._log.read_text()

    def peak_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def written(self) -> int:
        return int(psutil.Process(self.process.pid).io_counters().write_chars)


class Stack:
    """Agent and gateway with their folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.devices = folder / "devices"
        self.devices.mkdir()
        (folder / "key").write_text(KEY)
        (folder / "secret").write_text(SECRET)
        self.disks: dict[str, Path] = {}
        self._services: list[Service] = []

    def disk(self, name: str, size: int, pieces: dict[int, bytes] | None = None) -> Path:
        path = self.folder / f"{name}.raw"
        with path.open("wb") as file:
            file.truncate(size)
            for offset, data in (pieces or {}).items():
                file.seek(offset)
                file.write(data)
        self.disks[name] = path
        return path

    def volume(self, name: str, size: int, fill: bytes = b"") -> Path:
        path = self.folder / f"{name}.volume"
        with path.open("wb") as file:
            for _ in range(size // len(fill) if fill else 0):
                file.write(fill)
            file.truncate(size)
        (self.devices / f"virtio-{name}").symlink_to(path)
        return path

    def start(self, *agent_arguments: str) -> Stack:
        gateway = ["--state", str(self.folder / "gw"), "--devices", str(self.devices)]
        self.gateway = Service("gateway", self.folder, *gateway, "--key-file", str(self.folder / "key"))
        agent = ["--state", str(self.folder / "ag"), "--token-file", str(self.folder / "secret"), *agent_arguments]
        for name, path in self.disks.items():
            agent += ["--disk", f"{name}={path}"]
        self.agent = Service("agent", self.folder, *agent)
        self._services = [self.agent, self.gateway]
        return self

    def stop(self) -> None:
        for service in self._services:
            service.stop()

    @property
    def agent_client(self) -> ServiceClient:
        return self.agent.client(SECRET)

    @property
    def gateway_client(self) -> ServiceClient:
        return self.client_of_gateway(self.control_token())

    def client_of_gateway(self, token: str) -> ServiceClient:
        return self.gateway.client(token)

    def control_token(self) -> str:
        return tokens.issue(KEY, migration=MIGRATION, scope="control", lifetime=600)

    def write_token(self, *volumes: str) -> str:
        return tokens.issue(KEY, migration=MIGRATION, scope="write", volumes=volumes, lifetime=600)

    def spec(
        self, generation: int, base: int | None = None, token: str | None = None, **volumes: str
    ) -> dict[str, Any]:
        """A replicate spec; `volumes` maps disks to volumes."""
        write = token or self.write_token(*volumes.values())
        disks = [
            {
                "disk": disk,
                "sink": {
                    "kind": "gateway",
                    "url": self.gateway.url,
                    "fingerprint": self.gateway.fingerprint,
                    "volume": volume,
                    "generation": generation,
                    "token": write,
                    "max_pack_bytes": 4 * MIB,
                },
            }
            for disk, volume in volumes.items()
        ]
        return {"kind": "replicate", "migration": MIGRATION, "generation": generation, "base": base, "disks": disks}

    def replicate(self, generation: int, base: int | None = None, **volumes: str) -> dict[str, Any]:
        with self.agent_client as client:
            key = f"{MIGRATION}/{generation}/copy"
            client.submit(key, self.spec(generation, base, **volumes))
            return succeeded(client, key)

    def commit(self, generation: int) -> None:
        with self.agent_client as client:
            client.post(f"/v1/migrations/{MIGRATION}/generations/{generation}/commit")

    def verify(self, generation: int, step: str = "verify", **volumes: str) -> dict[str, Any]:
        disks = [
            {"disk": disk, "volume": volume, "size": self.disks[disk].stat().st_size}
            for disk, volume in volumes.items()
        ]
        with self.gateway_client as client:
            key = f"{MIGRATION}/{generation}/{step}"
            spec = {"kind": "verify", "migration": MIGRATION, "generation": generation, "disks": disks}
            client.submit(key, spec)
            return succeeded(client, key)


def wait(client: ServiceClient, key: str, *states: JobState, seconds: float = 60) -> JobStatus:
    deadline = time.monotonic() + seconds
    while (job := client.job(key)).state not in states:
        assert time.monotonic() < deadline, job
        time.sleep(0.02)
    return job


def succeeded(client: ServiceClient, key: str) -> dict[str, Any]:
    job = wait(client, key, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
    assert job.state is JobState.SUCCEEDED, job.error
    assert job.result is not None
    return job.result


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def same(left: Path, right: Path) -> bool:
    return os.system(f"cmp -s '{left}' '{right}'") == 0


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path)
    yield stack
    stack.stop()
