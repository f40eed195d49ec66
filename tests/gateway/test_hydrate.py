"""The hydrate job of a gateway that runs as a process: archives in the local cloud's OSS and in folders."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.agent.conftest import KEY, MIGRATION, Service
from tests.archive.filling import Blocks, add, block_at, make_archive
from wavelift.archive.archive import Archive
from wavelift.archive.layout import Generation
from wavelift.blocks.digest import BLOCK
from wavelift.localcloud.faults.rules import Rule
from wavelift.localcloud.server import LocalCloud
from wavelift.service import tokens
from wavelift.service.client import ServiceClient, ServiceError
from wavelift.service.jobs import JobStatus
from wavelift.stores.bucket import Bucket
from wavelift.stores.directory import DirectoryStore
from wavelift.stores.oss import OssStore

BLOCKS = 128
SIZE = BLOCKS * BLOCK - 512
SECRET = bytes(range(32)).hex()


class Gateway:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.devices = folder / "devices"
        self.devices.mkdir()
        (folder / "key").write_text(KEY)
        arguments = ["--state", str(folder / "gw"), "--devices", str(self.devices), "--key-file", str(folder / "key")]
        self.service = Service("gateway", folder, *arguments)
        self.client: ServiceClient
        self.connect()

    def connect(self) -> None:
        self.client = self.service.client(tokens.issue(KEY, migration=MIGRATION, scope="control", lifetime=600))

    def volume(self, name: str, fill: bytes = b"\0") -> Path:
        path = self.folder / f"{name}.volume"
        path.write_bytes(fill * (BLOCKS * BLOCK))
        (self.devices / f"virtio-{name}").symlink_to(path)
        return path

    def ended(self, key: str) -> JobStatus:
        return self.until(key, lambda job: job.state.final)

    def until(self, key: str, seen: Callable[[JobStatus], object]) -> JobStatus:
        end = time.monotonic() + 60
        while not seen(job := self.client.job(key)):
            assert time.monotonic() < end, f"{job}\n{self.service.log()}"
            time.sleep(0.05)
        return job

    def run(self, step: str, spec: dict[str, Any]) -> dict[str, Any]:
        key = f"{MIGRATION}/{spec['generation']}/{step}"
        self.client.submit(key, spec)
        job = self.ended(key)
        assert job.state == "succeeded" and job.result is not None, job
        return job.result

    def refused(self, step: str, spec: dict[str, Any]) -> tuple[str, str]:
        key = f"{MIGRATION}/{spec['generation']}/{step}"
        self.client.submit(key, spec)
        job = self.ended(key)
        assert job.error is not None, job
        return job.error.code, job.error.message + job.error.remedy

    def root_of(self, volume: str, generation: int, step: str) -> str:
        disks = [{"disk": "sda", "volume": volume, "size": SIZE}]
        spec = {"kind": "verify", "migration": MIGRATION, "generation": generation, "disks": disks}
        root: str = self.run(step, spec)["disks"][0]["root"]
        return root

    def limit(self, bandwidth: int | None) -> None:
        self.client.request("PUT", "/v1/limits", {"bandwidth": bandwidth})

    def journaled(self, volume: str) -> int:
        path = self.folder / "gw" / "hydrations" / volume.removeprefix("d-") / "journal"
        return len(path.read_bytes().splitlines()) if path.exists() else 0

    def close(self) -> None:
        self.client.close()
        self.service.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path_factory.mktemp("gateway"))
    yield gateway
    gateway.close()


@pytest.fixture
def gateway(shared: Gateway) -> Iterator[Gateway]:
    """Without a limit afterwards."""
    yield shared
    shared.limit(None)


@pytest.fixture
def fault(cloud: LocalCloud) -> Iterator[Callable[..., None]]:
    def add_rule(kind: str, **fields: Any) -> None:
        rule = {"fault": {"kind": kind, **fields.pop("of", {})}, "service": "oss", **fields}
        cloud.faults.add([Rule.model_validate(rule)])

    yield add_rule
    cloud.faults.reset()


def content(seed: int, numbers: range = range(0, BLOCKS, 2)) -> Blocks:
    return {number: block_at(SIZE, number, 1000 * seed + number) for number in numbers}


def packed(blocks: Blocks, count: int = 4) -> list[Blocks]:
    numbers = sorted(blocks)
    return [{n: blocks[n] for n in numbers[at : at + count]} for at in range(0, len(numbers), count)]


def bytes_of(blocks: Blocks) -> bytes:
    data = bytearray(BLOCKS * BLOCK)
    for number, each in blocks.items():
        data[number * BLOCK : number * BLOCK + len(each)] = each
    return bytes(data)


def in_bucket(bucket: Bucket, **other: Any) -> dict[str, Any]:
    names = ("endpoint", "bucket", "prefix", "region", "by_path", "access_key_id", "access_key_secret", "token")
    return {
        "kind": "bucket",
        "service": "oss",
        "key": SECRET,
        **{name: getattr(bucket, name) for name in names},
        **other,
    }


def in_folder(folder: Path) -> dict[str, Any]:
    return {"kind": "disks", "folders": [str(folder)], "prefix": ""}


def spec_of(
    generation: Generation, volume: str, archive: dict[str, Any], base: Generation | None = None, **other: Any
) -> dict[str, Any]:
    disk = {"disk": "sda", "volume": volume, "size": SIZE, "root": generation.root, "archive": archive}
    disk["base_root"] = None if base is None else base.root
    number = None if base is None else base.generation
    given = {"migration": MIGRATION, "generation": generation.generation, "base": number, "disks": [disk]}
    return {"kind": "hydrate", **given, **other}


@pytest.fixture
def sealed(bucket: Bucket) -> Archive:
    return make_archive(OssStore(bucket), sealed=True)


@pytest.fixture
def whole(sealed: Archive) -> tuple[Archive, Generation, Blocks]:
    """One generation in the bucket, of 16 packs."""
    blocks = content(1)
    return sealed, add(sealed, 1, SIZE, blocks, packed(blocks)), blocks


@pytest.fixture
def folder_archive(tmp_path: Path) -> Archive:
    (tmp_path / "archive").mkdir()
    return make_archive(DirectoryStore(tmp_path / "archive"))


def test_three_generations_with_zeroed_ranges_each_on_what_the_volume_holds(
    gateway: Gateway, bucket: Bucket, sealed: Archive
) -> None:
    first = content(1)
    changed = content(2, range(10, 20))
    second = {n: each for n, each in {**first, **changed}.items() if not 40 <= n < 60}
    third = {**second, **content(3, range(50, 54)), BLOCKS - 1: block_at(SIZE, BLOCKS - 1, 7)}
    one = add(sealed, 1, SIZE, first, packed(first))
    two = add(sealed, 2, SIZE, second, packed(changed), base=one)
    three = add(sealed, 3, SIZE, third, packed(dict(third.items() - second.items())), base=two)
    path, archive = gateway.volume("three", b"j"), in_bucket(bucket)

    tail = path.read_bytes()[SIZE:]
    done = gateway.run("three-full", spec_of(one, "d-three", archive))
    assert path.read_bytes() == bytes_of(first)[:SIZE] + tail
    (disk,) = done["disks"]
    assert (done["generation"], done["missing_bytes"], disk["missing"], disk["damaged"]) == (1, 0, [], [])
    assert (disk["volume"], disk["root"]) == ("d-three", one.root)
    assert (disk["packs"], disk["packs_read"]) == (16, 16) and disk["written_bytes"] == SIZE
    assert disk["wire_bytes"] == sum(row.size for row in sealed.packs(one))
    assert gateway.root_of("d-three", 1, "three-verify") == one.root

    # Over two generations at once, on what was read back.
    (disk,) = gateway.run("three-on", spec_of(three, "d-three", archive, base=one))["disks"]
    assert path.read_bytes() == bytes_of(third)[:SIZE] + tail
    differing = sum(min(BLOCK, SIZE - n * BLOCK) for n in range(BLOCKS) if third.get(n) != first.get(n))
    assert disk["written_bytes"] == differing and disk["packs_read"] == len(sealed.packs(two)) + len(
        sealed.packs(three)
    )
    assert gateway.root_of("d-three", 3, "three-verify") == three.root
    # The journal of what has ended is gone.
    assert gateway.journaled("three") == 0
    # A generation before the newest that the volume took is refused, as its packs are.
    code, said = gateway.refused("three-back", spec_of(two, "d-three", archive, base=three))
    assert code == "stale_generation" and path.read_bytes() == bytes_of(third)[:SIZE] + tail, said


def test_a_volume_that_does_not_hold_the_base_is_not_written(
    gateway: Gateway, bucket: Bucket, whole: tuple[Archive, Generation, Blocks]
) -> None:
    archive, one, first = whole
    second = {**first, 4: b"2" * BLOCK}
    two = add(archive, 2, SIZE, second, [{4: b"2" * BLOCK}], base=one)
    path = gateway.volume("other")
    path.write_bytes(bytes_of({**first, 6: b"x" * BLOCK, 8: b"x" * BLOCK}))
    before = path.read_bytes()
    spec = spec_of(two, "d-other", in_bucket(bucket), base=one)
    code, said = gateway.refused("other", spec)
    assert code == "base_mismatch" and path.read_bytes() == before
    assert "sda" in said and one.root in said and f"{2 * BLOCK} bytes differ" in said
    wrong = {**spec, "disks": [{**spec["disks"][0], "root": one.root}]}
    code, said = gateway.refused("other-root", wrong)
    assert code == "wrong_generation" and two.root in said and one.root in said
    # As it should be, it is written; the job that failed goes on when it is submitted again.
    path.write_bytes(bytes_of(first))
    (disk,) = gateway.run("other", spec)["disks"]
    assert path.read_bytes() == bytes_of(second) and disk["written_bytes"] == BLOCK


def test_increments_continue_a_seed_made_on_another_carrier(
    gateway: Gateway, bucket: Bucket, sealed: Archive, folder_archive: Archive
) -> None:
    first = content(1)
    second = {**first, 3: b"3" * BLOCK}
    seed = add(folder_archive, 1, SIZE, first, packed(first))
    on = add(sealed, 2, SIZE, second, [{3: b"3" * BLOCK}], base=seed)
    path = gateway.volume("seeded", b"j")
    offline = in_folder(Path(folder_archive.name))
    code, said = gateway.refused("seeded-early", spec_of(on, "d-seeded", in_bucket(bucket)))
    assert code == "base_mismatch" and seed.root in said and path.read_bytes() == b"j" * len(path.read_bytes())
    gateway.run("seeded", spec_of(seed, "d-seeded", offline))
    (disk,) = gateway.run("seeded", spec_of(on, "d-seeded", in_bucket(bucket), base=seed))["disks"]
    assert path.read_bytes()[:SIZE] == bytes_of(second)[:SIZE] and disk["written_bytes"] == BLOCK


def test_it_waits_for_what_is_still_on_its_way(gateway: Gateway, tmp_path: Path) -> None:
    travelling, arrived = tmp_path / "on-its-way", tmp_path / "arrived"
    arrived.mkdir()
    blocks = content(1)
    one = add(make_archive(DirectoryStore(arrived)), 1, SIZE, blocks, packed(blocks))
    path = gateway.volume("late")
    spec = spec_of(one, "d-late", in_folder(travelling))
    code, said = gateway.refused("late-now", spec)
    assert code in ("io", "store_unavailable") and str(travelling) in said
    patient = {**spec, "wait_seconds": 3600}
    for key in (f"{MIGRATION}/1/late", f"{MIGRATION}/1/late-cancelled"):
        gateway.client.submit(key, patient)
        step = gateway.until(key, lambda job: job.step.startswith("waiting for")).step
        assert step == f"waiting for generation 1 of sda in {travelling}"
    assert gateway.client.cancel(f"{MIGRATION}/1/late-cancelled").state == "cancelled"
    arrived.rename(travelling)
    assert gateway.ended(f"{MIGRATION}/1/late").state == "succeeded"
    assert path.read_bytes() == bytes_of(blocks)


def test_those_that_wait_for_disks_keep_nobody_from_working(gateway: Gateway, whole: Any, tmp_path: Path) -> None:
    """Each once held one of the gateway's four threads for jobs, for weeks."""
    _, one, _ = whole
    keys = []
    for number in range(6):
        gateway.volume(f"patient{number}")
        spec = spec_of(one, f"d-patient{number}", in_folder(tmp_path / f"on-its-way-{number}"), wait_seconds=3600)
        keys.append(f"{MIGRATION}/1/patient-{number}")
        gateway.client.submit(keys[-1], spec)
    for key in keys:
        gateway.until(key, lambda job: job.step.startswith("waiting for generation"))
    gateway.volume("busy")
    assert gateway.root_of("d-busy", 1, "verify-beside-the-patient")
    for key in keys:
        assert gateway.client.cancel(key).state == "cancelled"


@pytest.mark.parametrize("kind", ["throttle", "corrupt-body", "truncated-body", "reset", "drop-reply"])
def test_a_bad_day_of_the_store_costs_time_and_nothing_else(
    gateway: Gateway, bucket: Bucket, whole: tuple[Archive, Generation, Blocks], fault: Callable[..., None], kind: str
) -> None:
    _, one, blocks = whole
    path = gateway.volume(kind, b"j")
    fault(kind, action="GetObject", every=3, times=6)
    done = gateway.run(kind, spec_of(one, f"d-{kind}", in_bucket(bucket)))
    assert done["missing_bytes"] == 0 and path.read_bytes()[:SIZE] == bytes_of(blocks)[:SIZE]


def test_credentials_that_expire_in_the_middle_are_renewed_by_submitting_again(
    gateway: Gateway,
    bucket: Bucket,
    whole: tuple[Archive, Generation, Blocks],
    cloud: LocalCloud,
) -> None:
    _, one, blocks = whole
    path = gateway.volume("expiring", b"j")

    def archive(seconds: float) -> dict[str, Any]:
        made = cloud.accounts.issue(seconds)
        return in_bucket(replace(bucket, access_key_id=made.key, access_key_secret=made.secret, token=made.token))

    key = f"{MIGRATION}/1/expiring"
    gateway.limit(1 << 19)
    gateway.client.submit(key, spec_of(one, "d-expiring", archive(3)))
    gateway.until(key, lambda job: job.progress.wire_bytes > 0)
    job = gateway.ended(key)
    assert job.error is not None and job.error.code == "archive_denied" and "fresh" in job.error.remedy
    # Its first line, the zeroes, some packs.
    assert 2 < gateway.journaled("expiring") < 18
    gateway.limit(None)
    gateway.client.submit(key, spec_of(one, "d-expiring", archive(60)))
    done = gateway.ended(key)
    assert done.state == "succeeded" and done.result is not None
    # What had come was not fetched again.
    assert done.result["disks"][0]["wire_bytes"] == one.pack_bytes
    assert path.read_bytes()[:SIZE] == bytes_of(blocks)[:SIZE]


def test_a_gateway_that_was_killed_goes_on(
    tmp_path: Path, bucket: Bucket, whole: tuple[Archive, Generation, Blocks], cloud: LocalCloud
) -> None:
    _, one, blocks = whole
    gateway = Gateway(tmp_path)
    path = gateway.volume("killed", b"j")
    key = f"{MIGRATION}/1/killed"
    # Counts what is fetched.
    (counter,) = cloud.faults.add(
        [
            Rule.model_validate(
                {
                    "fault": {"kind": "delay", "seconds": 0.001},
                    "service": "oss",
                    "action": "GetObject",
                    "resource": "*.pack",
                }
            )
        ]
    )
    try:
        gateway.limit(2 << 20)
        gateway.client.submit(key, spec_of(one, "d-killed", in_bucket(bucket)))
        end = time.monotonic() + 60
        while gateway.journaled("killed") < 6:
            assert time.monotonic() < end
            time.sleep(0.02)
        gateway.service.kill()
        assert path.read_bytes()[:SIZE] != bytes_of(blocks)[:SIZE]
        gateway.service.start()
        gateway.connect()
        gateway.limit(None)
        done = gateway.ended(key)
        assert done.state == "succeeded" and done.result is not None, done
        assert path.read_bytes()[:SIZE] == bytes_of(blocks)[:SIZE]
        assert done.result["disks"][0]["packs_read"] == 16
        # Twice came at most what was under way: a pack a worker.
        assert 16 <= len(cloud.faults.log(counter.id)) <= 20
    finally:
        cloud.faults.reset()
        gateway.close()


def test_damaged_and_missing_packs_are_named_with_what_they_cost(gateway: Gateway, folder_archive: Archive) -> None:
    blocks = content(1, range(BLOCKS))
    one = add(folder_archive, 1, SIZE, blocks, packed(blocks))
    rows = folder_archive.packs(one)
    root = Path(folder_archive.name)
    gone, spoilt = rows.key(rows[3]), rows.key(rows[8])
    (root / gone).unlink()
    data = bytearray((root / spoilt).read_bytes())
    data[4000] ^= 1
    (root / spoilt).write_bytes(data)
    path = gateway.volume("lossy")
    done = gateway.run("lossy", spec_of(one, "d-lossy", in_folder(root)))
    (disk,) = done["disks"]
    assert disk["damaged"] == sorted([gone, spoilt]) and done["missing_bytes"] == disk["missing_bytes"] == 8 * BLOCK
    lost = {at // BLOCK for at in (rows[3].start, rows[8].start)}
    ranges = [{"offset": number * BLOCK, "length": 4 * BLOCK} for number in sorted(lost)]
    assert disk["missing"] == ranges
    kept = {n: each for n, each in blocks.items() if n // 4 * 4 not in lost}
    assert path.read_bytes()[:SIZE] == bytes_of(kept)[:SIZE]


def test_who_reads_waits_for_it_and_its_end_is_at_once(
    gateway: Gateway, bucket: Bucket, whole: tuple[Archive, Generation, Blocks]
) -> None:
    _, one, blocks = whole
    path = gateway.volume("paused", b"j")
    key = f"{MIGRATION}/1/paused"
    gateway.limit(0)
    gateway.client.submit(key, spec_of(one, "d-paused", in_bucket(bucket)))
    # Zeroes need no pack, and come first.
    gateway.until(key, lambda job: job.progress.written_bytes > 0)
    disks = [{"disk": "sda", "volume": "d-paused", "size": SIZE}]
    reader = f"{MIGRATION}/1/paused-verify"
    gateway.client.submit(reader, {"kind": "verify", "migration": MIGRATION, "generation": 1, "disks": disks})
    assert gateway.until(reader, lambda job: job.step == "waiting").state == "running"
    assert gateway.client.cancel(key).state == "cancelled"
    job = gateway.ended(reader)
    assert job.result is not None and job.result["disks"][0]["root"] != one.root
    before = path.read_bytes()
    gateway.limit(None)
    assert path.read_bytes() == before
    # It waits for a reader, too, and goes on where it was.
    (disk,) = gateway.run("paused", spec_of(one, "d-paused", in_bucket(bucket)))["disks"]
    assert disk["written_bytes"] == SIZE and path.read_bytes()[:SIZE] == bytes_of(blocks)[:SIZE]


def test_what_another_wrote_meanwhile_is_written_over(
    gateway: Gateway, bucket: Bucket, whole: tuple[Archive, Generation, Blocks]
) -> None:
    """A journal says nothing of a volume that somebody else has written to."""
    _, one, blocks = whole
    path = gateway.volume("contested", b"j")
    key = f"{MIGRATION}/1/contested"
    gateway.limit(1 << 20)
    gateway.client.submit(key, spec_of(one, "d-contested", in_bucket(bucket)))
    gateway.until(key, lambda job: job.progress.wire_bytes > 0)
    gateway.client.cancel(key)
    gateway.limit(None)
    source = gateway.volume("elsewhere", b"e")
    disks = [{"disk": "sda", "volume": "d-elsewhere", "onto": "d-contested"}]
    gateway.run("contested-transfer", {"kind": "transfer", "migration": MIGRATION, "generation": 1, "disks": disks})
    assert path.read_bytes() == source.read_bytes()
    gateway.run("contested", spec_of(one, "d-contested", in_bucket(bucket)))
    assert path.read_bytes()[:SIZE] == bytes_of(blocks)[:SIZE]


def test_a_spec_that_says_no_number_for_its_base_is_refused(gateway: Gateway, tmp_path: Path) -> None:
    disk = {"disk": "sda", "volume": "d-x", "size": SIZE, "root": "00" * 32, "base_root": "11" * 32}
    spec = {
        "kind": "hydrate",
        "migration": MIGRATION,
        "generation": 2,
        "disks": [{**disk, "archive": in_folder(tmp_path)}],
    }
    with pytest.raises(ServiceError, match="base"):
        gateway.client.submit(f"{MIGRATION}/2/none", spec)
