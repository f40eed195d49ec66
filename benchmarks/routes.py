"""Bytes that leave the source, that the gateway fetches, and that are stored, on each route; beside restic and borg.

python -m benchmarks.routes --folder /var/tmp --gib 4 --changed 0.03

One disk: a full copy, then increments (64 KiB blocks at random places among the data, found by a scan), the same bytes
for all. Agent and gateway over TLS, archives sealed. What goes to a gateway is limited to the rate of a link, because
on one that is faster than the compressor nothing is compressed; what goes to an archive always is. After each
generation the root of what the gateway (for an archive that is the last stop: the agent) reads back must be that of
the copy; in the end the volume, or what `wavelift restore` makes of the archive, is compared byte for byte with the
disk, and so is what restic and borg give back.

Bytes are counted on the loopback, or by the sizes of files, and the services' own figures must agree with them. They
do not depend on a quiet machine; seconds are not measured. Needs root, for a loopback of its own.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from benchmarks import measure
from benchmarks.cloud import BUCKET, KEY, SECRET, Cloud
from benchmarks.full_copy import spoil
from benchmarks.measure import GIB, MIB
from benchmarks.sample_disk import BLOCK, build, change
from benchmarks.services import Services
from benchmarks.stores import Borg, Restic, ResticToBucket
from wavelift.archive.descriptor import ArchiveDescriptor, BucketArchive, DisksArchive
from wavelift.archive.keys import archive_secret
from wavelift.localcloud.entities import REGION
from wavelift.manifest.route import Carrier, Route

LINK = "100mbit"
INCREMENTS = 3
# The end of an archive's prefix is its id, from which its key is made.
ARCHIVE = "disk"
PREFIX = f"bench/{ARCHIVE}"


@dataclass(frozen=True)
class Step:
    """Bytes of one generation: that left the agent, that it read back from the archive, that the gateway fetched."""

    left: int
    reread: int = 0
    fetched: int = 0


class Tool(Protocol):
    def step(self, source: Path) -> Step:
        """One more generation of the disk as it is now."""

    def finish(self, source: Path) -> None:
        """The disk comes back byte for byte. Raises RuntimeError."""

    def stored(self) -> int:
        """Bytes at rest."""


class Carried(Protocol):
    """An archive's objects, counted from outside."""

    def sizes(self) -> dict[str, int]: ...

    def size(self) -> int: ...


@dataclass(frozen=True)
class Disks:
    """A folder as one disk that travels."""

    folder: Path

    def sizes(self) -> dict[str, int]:
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.folder)): path.stat().st_size for path in files}

    def size(self) -> int:
        return sum(self.sizes().values())


@dataclass
class Ours:
    """A migration on one route."""

    route: Route
    bandwidth: str | None
    folder: Path
    services: Services
    volume: Path
    size: int
    cloud: Cloud
    disks: Disks
    master: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    generation: int = 0
    root: str = ""

    def step(self, source: Path) -> Step:
        base = (self.generation, self.root) if self.generation else None
        self.generation += 1
        carrier = self.route.carrier(self.generation)
        if carrier is Carrier.GATEWAY:
            run, result = self._copy(base, None)
            told = result["disks"][0]["wire_bytes"]
            _require(f"{self.route}: bytes to the gateway", told, run.wire)
            step = Step(run.wire)
        else:
            step, result = self._through(carrier, base)
        if self.route.lands:
            self.services.verify(self.generation, result["root"])
        self.services.commit(self.generation)
        self.root = result["disks"][0]["root"]
        return step

    def finish(self, source: Path) -> None:
        if not self.route.lands:
            self._restore()
        measure.require_same(source, self.volume)

    def stored(self) -> int:
        return self.cloud.size() + self.disks.size()

    def _copy(self, base: tuple[int, str] | None, archive: ArchiveDescriptor | None) -> tuple[measure.Run, Any]:
        number = base and base[0]
        run, result = self.services.copy(self.generation, number, archive, None if archive else self.bandwidth)
        if result["base_used"] != number:
            raise RuntimeError(f"no increment: {result['notes']}")
        return run, result

    def _through(self, carrier: Carrier, base: tuple[int, str] | None) -> tuple[Step, Any]:
        """As operators do it: disks that travel, and archives that are the last stop, are read back by the agent."""
        archive, carried = self._archive(carrier)
        before = carried.size()
        run, result = self._copy(base, archive)
        (disk,) = result["disks"]
        grown = carried.size() - before
        packs = self._packs(carried, self.generation)
        _require_equal(f"{self.route}: packs", disk["archive"]["pack_bytes"], packs)
        # A block map travels with each generation.
        _require(f"{self.route}: bytes into the archive", disk["wire_bytes"], grown, self._map)
        left, reread, fetched = grown, 0, 0
        if carrier is Carrier.BUCKET:
            _require(f"{self.route}: bytes to the bucket", grown, run.wire)
            left = run.wire
        if carrier is Carrier.DISKS or not self.route.lands:
            run, checked = self.services.check(self.generation, base and base[1], archive)
            if checked["root"] != result["root"]:
                raise RuntimeError(f"the agent read back {checked['root']} instead of {result['root']}")
            reread = checked["disks"][0]["checked_bytes"]
            _require_equal(f"{self.route}: bytes read back", reread, packs)
            if carrier is Carrier.BUCKET:
                _require(f"{self.route}: bytes read back from the bucket", reread, run.wire, 2 * self._map)
                reread = run.wire
        if self.route.lands:
            run, hydrated = self.services.hydrate(self.generation, disk["root"], base, archive)
            fetched = hydrated["disks"][0]["wire_bytes"]
            # A pack of nothing but zeroes is not asked for.
            _require(f"{self.route}: packs fetched", fetched, packs)
            if carrier is Carrier.BUCKET:
                _require(f"{self.route}: bytes from the bucket", fetched, run.wire, 2 * self._map)
                fetched = run.wire
        return Step(left, reread, fetched), result

    def _archive(self, carrier: Carrier) -> tuple[ArchiveDescriptor, Carried]:
        key = archive_secret(self.master, ARCHIVE).hex()
        if carrier is Carrier.DISKS:
            return DisksArchive(folders=[str(self.disks.folder)], prefix=PREFIX, key=key), self.disks
        bucket = BucketArchive(
            service="oss",
            endpoint=self.cloud.endpoint,
            bucket=BUCKET,
            prefix=PREFIX,
            region=REGION,
            by_path=True,
            access_key_id=KEY,
            access_key_secret=SECRET,
            key=key,
        )
        return bucket, self.cloud

    @property
    def _map(self) -> int:
        """Bytes of digests that a block map has at most."""
        return self.size // BLOCK * 32

    @staticmethod
    def _packs(carried: Carried, generation: int) -> int:
        return sum(size for key, size in carried.sizes().items() if f"{PREFIX}/packs/{generation}/" in key)

    def _restore(self) -> None:
        key_file = self.folder / "archive.key"
        key_file.write_text(self.master.hex())
        env = {"OSS_ACCESS_KEY_ID": KEY, "OSS_ACCESS_KEY_SECRET": SECRET, "OSS_REGION": REGION}
        place = f"oss://{BUCKET}/{PREFIX}"
        words = ["restore", "--overwrite", "--key-file", str(key_file), place, str(self.volume)]
        command = [sys.executable, "-m", "wavelift.cli.main", *words]
        measure.command(*command, env={**os.environ, **env, "OSS_ENDPOINT": self.cloud.endpoint})


@dataclass(frozen=True)
class Peer:
    store: Borg | Restic
    over_link: bool

    def step(self, source: Path) -> Step:
        run = self.store.store(source)
        if not self.over_link:
            return Step(run.stored)
        _require("restic: bytes to the bucket", run.stored, run.wire, run.stored // 10)
        return Step(run.wire)

    def finish(self, source: Path) -> None:
        self.store.check(source)

    def stored(self) -> int:
        return self.store.size()


def _require(what: str, least: int, counted: int, more: int = 0) -> None:
    """Both figures are of the same bytes: what is beyond `least` are headers, answers, and up to `more`."""
    if not least <= counted <= least * 1.02 + MIB + more:
        raise RuntimeError(f"{what}: {counted} were counted, {least} are said to be there")


def _require_equal(what: str, told: int, counted: int) -> None:
    if told != counted:
        raise RuntimeError(f"{what}: {counted} bytes were counted, {told} are said to be there")


@contextmanager
def ours(route: Route, bandwidth: str | None, folder: Path, source: Path) -> Iterator[Tool]:
    volume, shipped, size = folder / "volume", folder / "disk-1", source.stat().st_size
    shipped.mkdir()
    spoil(source, volume)
    with Cloud(folder / "cloud") as cloud, Services(folder / "services", source, volume, size, tls=True) as services:
        yield Ours(route, bandwidth, folder, services, volume, size, cloud, Disks(shipped))


@contextmanager
def local(kind: type[Borg] | type[Restic], folder: Path, source: Path) -> Iterator[Tool]:
    yield Peer(kind(folder / "store"), False)


@contextmanager
def restic_to_bucket(folder: Path, source: Path) -> Iterator[Tool]:
    with Cloud(folder / "cloud") as cloud:
        yield Peer(ResticToBucket(folder / "store", cloud), True)


def main() -> None:
    parser = measure.arguments(__doc__, gib=4)
    parser.add_argument("--changed", type=float, default=0.03, help="share of the disk's blocks, for each increment")
    args = parser.parse_args()
    measure.own_loopback()
    tools: dict[str, Callable[[Path, Path], Any]] = {str(route): partial(ours, route, LINK) for route in Route}
    tools["direct, on a faster link"] = partial(ours, Route.DIRECT, None)
    if measure.have("restic"):
        tools |= {"restic, to a folder": partial(local, Restic), "restic, to the bucket": restic_to_bucket}
    if measure.have("borg"):
        tools["borg, zstd,1, fixed 1 MiB, to a folder"] = partial(local, Borg)
    rows = []
    with measure.scratch(args.folder) as folder:
        first = folder / "first.raw"
        build(first, args.gib * GIB)
        data = sum(end - start for start, end in measure.data_ranges(first))
        for name, tool in tools.items():
            with measure.scratch(folder) as own, ExitStack() as stack:
                source = own / "disk.raw"
                subprocess.run(["cp", "--sparse=always", first, source], check=True)
                running = stack.enter_context(tool(own, source))
                steps = [running.step(source)]
                changed = 0
                for number in range(INCREMENTS):
                    changed += change(source, args.changed, 2 + number)
                    steps.append(running.step(source))
                running.finish(source)
                rows.append([name, *_row(steps, running.stored(), data, changed)])
                print(rows[-1], file=sys.stderr, flush=True)
    each = changed // INCREMENTS
    print(f"{args.gib} GiB with {data / 1e6:.0f} MB of data, then {INCREMENTS} times {each / 1e6:.0f} MB changed")
    header = ["MB (to the data, to the change)", "left the source: full", "increment", "read back by the agent: full"]
    header += ["increments", "fetched by the gateway: full", "increment", "stored in the end"]
    measure.table(header, rows)


def _row(steps: list[Step], stored: int, data: int, changed: int) -> list[str]:
    full, *later = steps
    each = changed // INCREMENTS

    def middle(value: Callable[[Step], int]) -> float:
        return measure.median([value(step) for step in later])

    return [
        _ratio(full.left, data),
        _ratio(middle(lambda step: step.left), each),
        _megabytes(full.reread),
        ", ".join(_megabytes(step.reread) for step in later) if any(step.reread for step in later) else "-",
        _ratio(full.fetched, data),
        _ratio(middle(lambda step: step.fetched), each),
        _ratio(stored, data + changed),
    ]


def _ratio(count: float, of: int) -> str:
    return f"{count / 1e6:.0f} ({count / of:.3f})" if count else "-"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.0f}" if count else "-"


if __name__ == "__main__":
    main()
