"""Agent, gateway and archives of migrations on any route, and their steps entered again and again as Airflow does."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import oss2

from operators.replicate import Base, replicate
from operators.run import MigrationRun
from operators.triggers import JobTrigger
from storage_backends.base import Labels, ReadableBackend, Role
from storage_backends.registry import open_backend
from tests.agent.conftest import KEY as GATEWAY_KEY
from tests.agent.conftest import MIB, Stack, noise
from tests.localcloud.conftest import KEY, REGION, SECRET
from tests.operators.conftest import step
from wavelift.archive.descriptor import ArchiveDescriptor, DisksArchive
from wavelift.archive.opening import open_archive
from wavelift.blocks.descriptor import SinkDescriptor
from wavelift.localcloud.accounts import ACCOUNT
from wavelift.localcloud.server import LocalCloud
from wavelift.manifest.route import Carrier, Route
from wavelift.manifest.schema import Offline
from wavelift.service import tokens
from wavelift.service.client import ServiceClient
from wavelift.service.jobs import JobState, JobStatus
from wavelift.stores.base import Store

BLOCK = 64 * 1024
SIZE = 8 * MIB
DISKS = ("sda", "sdb")
MASTER = bytes(range(32))
BUCKET = "routes"
_ON_GATEWAY = ("verify", "hydrate")
Record = dict[str, Any]


def bucket_of(cloud: LocalCloud) -> oss2.Bucket:
    auth = oss2.AuthV4(KEY, SECRET)
    bucket = oss2.Bucket(auth, f"http://{cloud.oss_endpoint}", BUCKET, region=REGION, is_path_style=True)
    bucket.create_bucket()
    return bucket


def archives_in(cloud: LocalCloud, endpoint: str | None = None) -> ReadableBackend:
    """The backend `oss`, whose agents and gateways get keys of a role's session."""
    extra = {
        "endpoint": endpoint or f"http://{cloud.oss_endpoint}",
        "region": REGION,
        "bucket": BUCKET,
        "prefix": "transit",
        "path_style": "true",
        "role_arn": f"acs:ram::{ACCOUNT}:role/archives",
        "sts_endpoint": f"http://{cloud.endpoint}",
        "master_secret": MASTER.hex(),
    }
    found: Any = open_backend(
        "oss", connection_id="archives", login=KEY, password=SECRET, extra=extra, region="", zone=""
    )
    return found


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def flip(path: Path, offset: int) -> None:
    with path.open("rb") as file:
        file.seek(offset)
        byte = file.read(1)[0]
    overwrite(path, offset, bytes([byte ^ 4]))


class Run:
    """What `replicate` asks of a run: each has volumes, archives and disks to be shipped of its own."""

    bandwidth = None
    committed = MigrationRun.committed
    pool: ClassVar[str] = "pool"

    def __init__(self, stack: Stack, archives: ReadableBackend, route: Route, name: str, size: int) -> None:
        self._stack, self._archives = stack, archives
        self.key = f"demo-web-{name}"
        self.name = name
        self.disks = [SimpleNamespace(id=disk) for disk in DISKS]
        self.migration = SimpleNamespace(source=SimpleNamespace(agent="agent"), route=route)
        # Two disks each, as one side and then the other has them mounted.
        here, there = ([str(stack.folder / f"{name}-{side}-{n}") for n in (1, 2)] for side in ("agent", "gateway"))
        self.offline = Offline(connection="wavelift_offline", write=here, read=there, arrival="30s")  # type: ignore[arg-type]
        for folder in here:
            Path(folder).mkdir()
        self.volumes = {disk: stack.volume(f"{name}{disk}", size, b"\xa5" * BLOCK) for disk in DISKS}

    @property
    def manifest(self) -> Any:
        return SimpleNamespace(cloud=SimpleNamespace(model_dump=dict), offline=self.offline)

    @property
    def route(self) -> Route:
        return self.migration.route

    def labels(self, role: Role | None = None, disk: str | None = None, generation: int | None = None) -> Labels:
        return Labels("demo", "web", self.name, role, disk, generation)

    def gateway_labels(self) -> Labels:
        return Labels("demo", "all", self.pool)

    def job_key(self, generation: int, name: str) -> str:
        return f"{self.key}/{generation}/{name}"

    def backend(self) -> Run:
        return self

    def archive(self) -> ReadableBackend:
        return self._archives

    def volume(self, _backend: object, disk: str) -> SimpleNamespace:
        return SimpleNamespace(id=f"d-{self.name}{disk}")

    @contextmanager
    def agent(self) -> Iterator[ServiceClient]:
        with self._stack.agent_client as client:
            yield client

    @contextmanager
    def gateway(self, _backend: object = None) -> Iterator[ServiceClient]:
        token = tokens.issue(GATEWAY_KEY, migration=self.key, scope="control", lifetime=600)
        with self._stack.client_of_gateway(token) as client:
            yield client

    def sink(self, volume: str, _labels: Labels, generation: int) -> SinkDescriptor:
        return SinkDescriptor(
            url=self._stack.gateway.url,
            fingerprint=self._stack.gateway.fingerprint,
            volume=volume,
            generation=generation,
            token=tokens.issue(GATEWAY_KEY, migration=self.key, scope="write", volumes=[volume], lifetime=600),
        )

    def ship(self) -> None:
        """The disks leave the agent's machine, and are mounted where the gateway is."""
        for here, there in zip(self.offline.write, self.offline.read, strict=True):
            shutil.move(here, there)

    def opened(self, carrier: Carrier, disk: str) -> ArchiveDescriptor:
        """What keeps a disk's generations, for whoever may do all with it."""
        labels = self.labels(Role.REPLICA, disk)
        if carrier is Carrier.BUCKET:
            (volume,) = self._archives.list(labels)
            return self._archives.source(volume.id)
        from operators.hooks import find_connection, shipped_of

        folders = [each for each in (*self.offline.read, *self.offline.write) if Path(each).is_dir()]
        found: DisksArchive = shipped_of(find_connection(self.offline.connection), labels, folders)
        return found

    def store(self, carrier: Carrier, disk: str) -> Store:
        """The objects of an archive as they lie there, for damage to be done to."""
        if carrier is Carrier.BUCKET:
            (volume,) = self._archives.list(self.labels(Role.REPLICA, disk))
            archives: Any = self._archives
            lies: Store = archives._lies(volume.id)
            return lies
        return open_archive(self.opened(carrier, disk)).bare

    def packs(self, generation: int, disk: str) -> list[str]:
        carrier = self.route.carrier(generation)
        return [entry.key for entry in self.store(carrier, disk).list(f"packs/{generation}/")]

    def lose(self, generation: int, disk: str) -> None:
        """Delete the packs of a generation."""
        self.store(self.route.carrier(generation), disk).delete(self.packs(generation, disk))

    def spoil(self, generation: int, disk: str) -> None:
        """Flip a bit in each pack of a generation."""
        self._spoil(generation, disk, self.packs(generation, disk))

    def lose_object(self, generation: int, disk: str, beginning: str) -> None:
        """Delete the objects whose keys begin so: a folder's, or the one of that key."""
        store = self.store(self.route.carrier(generation), disk)
        store.delete(self._beginning(generation, disk, beginning))

    def spoil_object(self, generation: int, disk: str, beginning: str) -> None:
        """Flip a bit in each of them."""
        self._spoil(generation, disk, self._beginning(generation, disk, beginning))

    def _beginning(self, generation: int, disk: str, beginning: str) -> list[str]:
        there = [entry.key for entry in self.store(self.route.carrier(generation), disk).list(beginning)]
        found = [key for key in there if key == beginning or beginning.endswith("/")]
        assert found, beginning
        return found

    def _spoil(self, generation: int, disk: str, keys: list[str]) -> None:
        store = self.store(self.route.carrier(generation), disk)
        for key in keys:
            data = bytearray(store.get(key))
            data[len(data) // 2] ^= 1
            store.put(key, data)


class Site:
    """An agent with two disks, a gateway, and a place of archives, for one migration after another."""

    def __init__(self, stack: Stack, cloud: LocalCloud) -> None:
        self.stack = stack
        self.cloud = cloud
        bucket_of(cloud)
        self.archives = archives_in(cloud)
        self._runs = 0

    def run(self, route: Route, size: int = SIZE) -> Run:
        """`size` of each disk, in bytes."""
        self._runs += 1
        for number, disk in enumerate(DISKS):
            pieces = {0: noise(MIB, number), 3 * MIB: noise(2 * MIB, 10 + number)}
            self.stack.disk(disk, size, pieces)
        return Run(self.stack, self.archives, route, f"r{self._runs}", size)

    def write(self, disk: str, offset: int, blocks: int, seed: int) -> None:
        overwrite(self.stack.disks[disk], offset, noise(blocks * BLOCK, seed))

    def advance(
        self,
        run: Any,
        generation: int,
        base: Base | None,
        after: Callable[[str], None] = lambda job: None,
        event: dict[str, Any] | None = None,
    ) -> Record:
        """Enter the step until it has a record. `after` is called once with each job that was waited for, without the
        run's name, when it has ended."""
        seen: set[str] = set()
        deadline = time.monotonic() + 60
        event = event or {}
        while True:
            outcome = replicate(step(), run, generation, base, event)
            if isinstance(outcome, dict):
                return json.loads(json.dumps(outcome))  # type: ignore[no-any-return]
            assert isinstance(outcome, JobTrigger)
            key = outcome.job
            self.ended(run, key, deadline)
            if key not in seen:
                seen.add(key)
                after(key.removeprefix(f"{run.key}/"))
            event = {"job": key, "submit": not self._knows(run, key)}

    def ended(self, run: Run, key: str, deadline: float) -> JobStatus:
        with run.gateway() if _name(key) in _ON_GATEWAY else run.agent() as client:
            while (job := client.job(key)).state in (JobState.QUEUED, JobState.RUNNING):
                assert time.monotonic() < deadline, job
                time.sleep(0.02)
        return job

    def _knows(self, run: Run, key: str) -> bool:
        return key in self.jobs(run)

    def replace_gateway(self) -> None:
        """Another instance, that knows nothing, at the same volumes."""
        self.stack.gateway.kill()
        shutil.rmtree(self.stack.folder / "gw")
        self.stack.gateway.start()

    def jobs(self, run: Run) -> dict[str, int]:
        """Attempts at each job of a run, of agent and gateway."""
        found: dict[str, int] = {}
        with run.agent() as agent, run.gateway() as gateway:
            for client in (agent, gateway):
                found |= {job.key: job.attempt for job in client.jobs() if job.key.startswith(f"{run.key}/")}
        return found


def _name(job: str) -> str:
    """What a job does: its key is RUN/GENERATION/NAME-WHICH."""
    return job.rpartition("/")[2].partition("-")[0]


def named(job: str) -> str:
    """GENERATION/NAME of it."""
    return "/".join((job.split("/")[-2], _name(job)))


def base_of(record: Record) -> Base:
    return Base(record["generation"], {disk["disk"]: disk["root"] for disk in record["disks"]})
