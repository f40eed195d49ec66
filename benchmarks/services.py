"""Agent and gateway as an operator starts them: two processes that are told what to do over REST, on loopback."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measure import Run, loopback, peak
from wavelift.archive.descriptor import ArchiveDescriptor
from wavelift.service import tokens
from wavelift.service.client import ServiceClient
from wavelift.service.jobs import JobState

KEY = "the key of a benchmark, and of nothing else"
SECRET = "the secret of a benchmark, and of nothing else"
DISK, VOLUME, MIGRATION = "sda", "d-bench", "bench"


class Services:
    """One disk, and the file or device that is its volume. Without TLS unless asked for: the peers have none."""

    def __init__(self, folder: Path, source: str | Path, volume: Path, size: int, tls: bool = False) -> None:
        self._folder = folder
        self._tls = tls
        self._source = source
        self._volume = volume
        self._size = size
        self._running: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "Services":
        folder = self._folder
        (folder / "devices").mkdir(parents=True)
        (folder / "devices/virtio-bench").symlink_to(self._volume)
        (folder / "key").write_text(KEY)
        (folder / "secret").write_text(SECRET)
        try:
            devices = ["--devices", str(folder / "devices"), "--key-file", str(folder / "key")]
            self._gateway = self._start("gateway", *devices)
            self._agent = self._start(
                "agent", "--token-file", str(folder / "secret"), "--disk", f"{DISK}={self._source}"
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            process.wait()

    def peaks(self) -> tuple[float, float]:
        """MB of agent and gateway."""
        gateway, agent = self._running
        return peak(agent.pid), peak(gateway.pid)

    def copy(
        self,
        generation: int,
        base: int | None = None,
        archive: ArchiveDescriptor | None = None,
        bandwidth: str | None = None,
    ) -> tuple[Run, dict[str, Any]]:
        """A generation onto the volume, or into an archive; durable at the end, from the request's arrival to the
        job's end."""
        sink = self._volume_sink(generation) if archive is None else archive.model_dump()
        disks = [{"disk": DISK, "sink": sink}]
        spec = {"kind": "replicate", "base": base, "disks": disks, "bandwidth": bandwidth}
        return self._on_agent(generation, "copy", spec)

    def check(self, generation: int, base_root: str | None, archive: ArchiveDescriptor) -> tuple[Run, dict[str, Any]]:
        """The agent reads an archive back; `base_root` is of what it has read back before."""
        spec = {"kind": "check", "disks": [{"disk": DISK, "archive": archive.model_dump(), "base_root": base_root}]}
        return self._on_agent(generation, "check", spec)

    def hydrate(
        self, generation: int, root: str, base: tuple[int, str] | None, archive: ArchiveDescriptor
    ) -> tuple[Run, dict[str, Any]]:
        """The gateway brings a generation from an archive onto the volume. `root` is the disk's, `base` the number and
        root of what the volume holds."""
        number, base_root = base or (None, None)
        disk = {"disk": DISK, "volume": VOLUME, "size": self._size, "root": root, "base_root": base_root}
        spec = {"kind": "hydrate", "base": number, "disks": [{**disk, "archive": archive.model_dump()}]}
        return self._on_gateway(generation, "hydrate", spec)

    def verify(self, generation: int, root: str) -> Run:
        """The volume read back from the medium. Raises RuntimeError when it does not hold what `root` names."""
        spec = {"kind": "verify", "disks": [{"disk": DISK, "volume": VOLUME, "size": self._size}]}
        run, result = self._on_gateway(generation, "verify", spec)
        if result["root"] != root:
            raise RuntimeError(f"read back {result['root']} instead of {root}")
        return run

    def commit(self, generation: int) -> None:
        with _client(self._agent, SECRET) as client:
            client.post(f"/v1/migrations/{MIGRATION}/generations/{generation}/commit")

    def _volume_sink(self, generation: int) -> dict[str, Any]:
        write = tokens.issue(KEY, migration=MIGRATION, scope="write", volumes=[VOLUME], lifetime=3600)
        return {"kind": "gateway", **self._gateway, "volume": VOLUME, "generation": generation, "token": write}

    def _on_agent(self, generation: int, step: str, spec: Mapping[str, Any]) -> tuple[Run, dict[str, Any]]:
        return self._run(self._agent, SECRET, generation, step, spec)

    def _on_gateway(self, generation: int, step: str, spec: Mapping[str, Any]) -> tuple[Run, dict[str, Any]]:
        control = tokens.issue(KEY, migration=MIGRATION, scope="control", lifetime=3600)
        return self._run(self._gateway, control, generation, step, spec)

    def _run(
        self, service: Mapping[str, str], token: str, generation: int, step: str, spec: Mapping[str, Any]
    ) -> tuple[Run, dict[str, Any]]:
        about = {"migration": MIGRATION, "generation": generation}
        with _client(service, token) as client:
            run, result = _job(client, f"{MIGRATION}/{generation}/{step}", {**spec, **about})
        return Run(run.seconds, run.wire, self.peaks()), result

    def _start(self, name: str, *arguments: str) -> dict[str, str]:
        """Its `url`, and the `fingerprint` of its certificate."""
        words = [name, "--state", str(self._folder / name), *arguments, *([] if self._tls else ["--plaintext"])]
        process, said = listening(self._folder / f"{name}.log", *words)
        self._running.append(process)
        return {"url": said["url"], "fingerprint": said.get("fingerprint", "")}


def listening(log: Path, *words: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """A server of `wavelift`, and what it says about where it listens. Raises RuntimeError with its log."""
    with log.open("w") as file:
        command = [sys.executable, "-m", "wavelift.cli.main", *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.wait()
        raise RuntimeError(log.read_text())
    said: dict[str, Any] = json.loads(line)
    return process, said


def _client(service: Mapping[str, str], token: str) -> ServiceClient:
    return ServiceClient(service["url"], token, service["fingerprint"])


def _job(client: ServiceClient, key: str, spec: Mapping[str, Any]) -> tuple[Run, dict[str, Any]]:
    before = loopback()
    client.submit(key, spec)
    # Seldom, as an operator does: an answer costs the service milliseconds of the very core it copies with.
    while not (job := client.job(key)).state.final:
        time.sleep(0.25)
    assert job.finished is not None
    run = Run((job.finished - job.created).total_seconds(), loopback() - before)
    if job.state is not JobState.SUCCEEDED or job.result is None:
        raise RuntimeError(f"{key}: {job.state} {job.error}")
    return run, job.result
