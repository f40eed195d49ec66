"""Increments of a live guest's disk with a dirty bitmap: time and bytes on the wire as the change grows.

python -m benchmarks.increments_bitmap --folder /var/tmp --runs 5

The guest is a QEMU machine that runs nothing; its device's writes are injected by its monitor, at random places of
64 KiB among the data, random bytes so that compression hides nothing, then agent and gateway run one increment over
REST. The guest's file is compared with the volume byte for byte after each. Then the same change on disks of 1, 8 and
64 GiB with the same data.
"""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.measure import GIB, MIB, Run
from benchmarks.sample_disk import BLOCK, DATA_SHARE, build, change_places
from benchmarks.services import Services
from wavelift.sources.qmp import GuestGone, Qmp

SHARES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
SIZES = (1, 8, 64)


class Guest:
    """A machine with one raw disk and nothing to boot."""

    def __init__(self, disk: Path, folder: Path) -> None:
        self.monitor = folder / "monitor"
        self._block = folder / "block"
        command = ["qemu-system-x86_64", "-accel", "tcg", "-m", "32", "-display", "none", "-nodefaults"]
        for path in (self.monitor, folder / "ours"):
            command += ["-qmp", f"unix:{path},server=on,wait=off"]
        command += ["-blockdev", f"driver=raw,node-name=disk,file.driver=file,file.filename={disk}"]
        command += ["-device", "virtio-blk-pci,drive=disk,id=disk"]
        self._process = subprocess.Popen(command)
        self._qmp = self._connect(folder / "ours")

    def _connect(self, path: Path) -> Qmp:
        while True:
            try:
                return Qmp(path)
            except GuestGone:
                if self._process.poll() is not None:
                    raise
                time.sleep(0.02)

    def write(self, places: list[int]) -> None:
        """Whole blocks of random bytes."""
        for at in places:
            self._block.write_bytes(os.urandom(BLOCK))
            command = f'qemu-io -d /machine/peripheral/disk/virtio-backend "write -q -s {self._block} {at} {BLOCK}"'
            answer = self._qmp.execute("human-monitor-command", {"command-line": command})
            if answer.strip():
                raise RuntimeError(answer)

    def stop(self) -> None:
        self._qmp.execute("quit")
        self._qmp.close()
        self._process.wait()


@dataclass
class Increment:
    changed: int
    run: Run
    tracker: str


def increments(folder: Path, size: int, data: int, shares: list[float], args: Any) -> list[list[Increment]]:
    """A list for each share (of the disk's blocks), measured in turns on one guest."""
    disk, volume = folder / "disk.raw", folder / "volume"
    build(disk, size, data=data)
    with volume.open("wb") as file:
        file.truncate(size)
    guest = Guest(disk, folder)
    found: list[list[Increment]] = [[] for _ in shares]
    try:
        source = f"qmp:{guest.monitor}?node=disk"
        with Services(folder / "services", source, volume, size) as pair:
            pair.copy(1)
            pair.commit(1)
            generation = 1
            for number in range(args.runs):
                for share, increments in zip(shares, found, strict=True):
                    generation += 1
                    places = [at for at, _ in change_places(disk, share, generation)]
                    guest.write(places)
                    measure.quiet(args.patience)
                    run, result = pair.copy(generation, generation - 1)
                    pair.commit(generation)
                    measure.require_same(disk, volume)
                    increments.append(Increment(len(places) * BLOCK, run, result["tracker"]))
                    print(f"{number + 1}/{args.runs} {share:.2%}: {run.seconds:.2f} s", file=sys.stderr, flush=True)
    finally:
        guest.stop()
    return found


def row(name: str, runs: list[Increment]) -> list[str]:
    changed, wire = (measure.median(values) for values in zip(*((i.changed, i.run.wire) for i in runs), strict=True))
    return [
        name,
        f"{changed / 1e6:.1f}",
        measure.seconds([each.run for each in runs]),
        f"{wire / 1e6:.1f}",
        f"{wire / changed:.3f}",
        " and ".join(f"{max(each.run.peaks[side] for each in runs):.0f}" for side in (0, 1)),
        "/".join(sorted({each.tracker for each in runs})),
    ]


def main() -> None:
    args = measure.arguments(__doc__).parse_args()
    measure.own_loopback()
    header = ["changed, MB", "s", "on the wire, MB", "to the changed blocks", "peak MB, agent and gateway", "found by"]
    with measure.scratch(args.folder) as parent:
        size = args.gib * GIB
        folder = parent / "shares"
        folder.mkdir()
        rows = increments(folder, size, int(size * DATA_SHARE), list(SHARES), args)
        shutil.rmtree(folder)
        table = [row(f"{share:.1%}", runs) for share, runs in zip(SHARES, rows, strict=True)]
        measure.table([f"of {args.gib} GiB", *header], table)
        table = []
        for gib in SIZES:
            folder = parent / str(gib)
            folder.mkdir()
            changed = 128 * MIB
            runs = increments(folder, gib * GIB, GIB * 3 // 4, [changed / (gib * GIB)], args)[0]
            shutil.rmtree(folder)
            table.append(row(f"{gib} GiB", runs))
        measure.table(["the same change on", *header], table)


if __name__ == "__main__":
    main()
