"""The hydrate job: generations from archives into the volumes, joined by their roots to what the volumes hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wavelift.blocks.blockmap import DiskMap
from wavelift.blocks.compare import differences
from wavelift.blocks.errors import MapError
from wavelift.blocks.readback import ReadBack
from wavelift.blocks.throttle import Throttle
from wavelift.gateway.hands import Hands
from wavelift.gateway.hydrate_coming import Coming, awaited
from wavelift.gateway.hydrate_spec import BaseMismatch, HydrateDisk, HydrateSpec
from wavelift.gateway.readbacks import ReadBacks
from wavelift.gateway.turns import VolumeBusy
from wavelift.gateway.volumes import Volumes
from wavelift.hydrate.crew import asked
from wavelift.hydrate.hydrate import Hydrated, Target, Writer, hydrate, renewable
from wavelift.hydrate.journal import Subject, Work
from wavelift.service.errors import Conflict, NotFound
from wavelift.service.job_context import JobContext

BUSY_SECONDS = 0.2
NAMED = 100
# Where not all are named, all of the disk is sent again. A pack of 64 MiB has 1,024 blocks, at worst each by itself.
MISSING_NAMED = 4096
Turn = Callable[[], AbstractContextManager[None]]


class Hydrating:
    def __init__(self, volumes: Volumes, readbacks: ReadBacks, throttle: Throttle, folder: Path, hands: Hands) -> None:
        """`folder` is where it is kept what is done; what is fetched goes through the throttle."""
        self._hands = hands
        self._volumes = volumes
        self._readbacks = readbacks
        self._throttle = throttle
        self._folder = folder

    def run(self, context: JobContext[HydrateSpec]) -> dict[str, Any]:
        """Nothing is written before all disks were found to fit. Raises `WrongGeneration`, `BaseMismatch`,
        `NotJoined`, `AccessLost`, `StaleGeneration`, `VolumeNotAttached`, `VolumeTooSmall`, `ArchiveError`,
        `StoreError`, OSError."""
        spec = context.spec
        begun_at = time.monotonic()
        coming = [awaited(context, number, begun_at) for number in range(len(spec.disks))]
        context.step("waiting")
        with ExitStack() as stack:
            stack.enter_context(self._hands.at_work(context))
            turns = self._turns(context, coming, stack)
            works = [self._resumed(spec, each) for each in coming]
            bases = [
                None if work is not None else self._base(context, each)
                for each, work in zip(coming, works, strict=True)
            ]
            begun: list[Work] = []
            for each, turn, work, base in zip(coming, turns, works, bases, strict=True):
                context.step(f"planning disk {each.disk.disk}")
                begun.append(work or self._begun(context, each, turn, base))
                stack.callback(begun[-1].close)
            context.step("hydrating")
            done = [
                self._fill(context, each, turn, work, begun)
                for each, turn, work in zip(coming, turns, begun, strict=True)
            ]
        disks = [_result(each.disk, found) for each, found in zip(coming, done, strict=True)]
        missing = sum(found.missing_bytes for found in done)
        return {"generation": spec.generation, "disks": disks, "missing_bytes": missing}

    def _turns(self, context: JobContext[HydrateSpec], coming: Sequence[Coming], stack: ExitStack) -> list[Turn]:
        """All volumes at once, or none while one of them is read: who reads waits for all of them, too."""
        spec = context.spec
        while True:
            with ExitStack() as taken:
                try:
                    found: list[Turn] = []
                    for each in coming:
                        volume = self._volumes.holding(each.disk.volume, each.disk.disk, each.disk.size)
                        turn = self._volumes.turns.writing(volume.id, spec.migration, spec.generation, each.sequence)
                        found.append(taken.enter_context(turn))
                except VolumeBusy:
                    found = []
                if found:
                    stack.push(taken.pop_all())
                    return found
            context.stop.wait(BUSY_SECONDS)
            context.check()

    def _resumed(self, spec: HydrateSpec, coming: Coming) -> Work | None:
        """Unless anybody else has written to the volume since, or it was begun for another generation."""
        migration, generation, mark = self._volumes.turns.taken(coming.disk.volume)
        if (migration, generation) != (spec.migration, spec.generation):
            return None
        return Work.resume(self._work(coming.disk), Subject(*coming.subject, mark), coming.wanted)

    def _begun(self, context: JobContext[HydrateSpec], coming: Coming, turn: Turn, base: DiskMap | None) -> Work:
        with turn():
            # From here on the volume is this generation's.
            mark = self._volumes.turns.taken(coming.disk.volume)[2]
        subject, folder = Subject(*coming.subject, mark), self._work(coming.disk)
        with renewable():
            return asked(lambda: Work.begin(folder, subject, coming.wanted, base, False, context.check), context.check)

    def _base(self, context: JobContext[HydrateSpec], coming: Coming) -> DiskMap | None:
        """What the volume holds, when that is of use. Raises `BaseMismatch`."""
        disk, base = coming.disk, context.spec.base
        if disk.base_root is None or base is None:
            return None
        found = self._kept(context, disk, base) or self._read_back(context, disk, base)
        if found.root.hex() == disk.base_root:
            return found
        differing = None
        if base in {generation.generation for generation in coming.chain}:
            there = coming.archive.map(coming.archive.load(base))
            if there.root.hex() == disk.base_root:
                differing = sum(end - start for start, end in differences(there, found, context.check))
        raise BaseMismatch(disk.disk, disk.volume, base, disk.base_root, found.root.hex(), differing)

    def _kept(self, context: JobContext[HydrateSpec], disk: HydrateDisk, base: int) -> DiskMap | None:
        """What was read back, unless the volume was changed since by anything but packs, which drop it."""
        if self._volumes.turns.taken(disk.volume)[0] != context.spec.migration:
            return None
        try:
            found = self._readbacks.load(disk.volume, base)
        except (NotFound, MapError):
            return None
        return found if found.size == disk.size else None

    def _read_back(self, context: JobContext[HydrateSpec], disk: HydrateDisk, base: int) -> DiskMap:
        context.step(f"reading back disk {disk.disk}")
        path = self._volumes.holding(disk.volume, disk.disk, disk.size).path

        def check() -> None:
            context.check()
            context.progress(total=disk.size, done=lies.done, verified=lies.done)

        with self._readbacks.turn(disk.volume, context.check), ReadBack(path, disk.size, check=check) as lies:
            return self._readbacks.keep(disk.volume, disk.disk, base, lies)

    def _fill(
        self, context: JobContext[HydrateSpec], coming: Coming, turn: Turn, work: Work, all_works: Sequence[Work]
    ) -> Hydrated:
        volume = coming.disk.volume

        def check() -> None:
            context.check()
            context.progress(
                total=sum(each.wanted.size for each in all_works),
                done=sum(each.wanted.size - each.left.bytes for each in all_works),
                wire=sum(each.wire_bytes for each in all_works),
                written=sum(each.written_bytes for each in all_works),
            )

        done = hydrate(
            coming.archive,
            coming.chain,
            work,
            _VolumeTarget(self._volumes, volume, turn),
            lane=context.spec.migration,
            throttles=[self._throttle],
            check=check,
        )
        check()
        if self._volumes.turns.taken(volume)[2] != work.subject.mark:
            work.discard()
            raise Conflict(
                f"Another migration wrote to volume {volume} while it was hydrated.",
                "See to it that only one does, and submit the job again.",
                code="target_contested",
            )
        if not done.missing:
            work.discard()
        return done

    def _work(self, disk: HydrateDisk) -> Path:
        return self._folder / disk.volume.removeprefix("d-")


class _VolumeTarget(Target):
    """A volume, each write in its turn."""

    def __init__(self, volumes: Volumes, volume: str, turn: Turn) -> None:
        self._volumes = volumes
        self._volume = volume
        self._turn = turn

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        with self._volumes.writing(self._volume) as writer:
            yield _InTurn(writer, self._turn)


@dataclass(frozen=True)
class _InTurn(Writer):
    _writer: Writer
    _turn: Turn

    def write(self, offset: int, data: memoryview) -> None:
        with self._turn():
            self._writer.write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        with self._turn():
            self._writer.zero(offset, length)


def _result(disk: HydrateDisk, done: Hydrated) -> dict[str, Any]:
    return {
        "disk": disk.disk,
        "volume": disk.volume,
        "root": disk.root,
        "packs": done.packs,
        "packs_read": done.packs_read,
        "wire_bytes": done.wire_bytes,
        "written_bytes": done.written_bytes,
        "missing_bytes": done.missing_bytes,
        "missing": [{"offset": start, "length": end - start} for start, end in done.missing[:MISSING_NAMED]],
        "damaged": done.damaged[:NAMED],
    }
