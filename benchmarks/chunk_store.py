"""A full copy of a disk into an archive in a folder, durable at the end, and an increment; against borg and restic.

python -m benchmarks.chunk_store --folder /var/tmp --gib 8 --runs 5 --changed 0.03

All find the disk in the page cache. Ours runs as `wavelift copy SOURCE folder:DIR`, the start of the program included,
and reads the whole disk for the increment, as the others do. Each store is new for each run, and what it gives back is
compared byte for byte, both times. restic encrypts as well.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import measure
from benchmarks.measure import GIB, Run
from benchmarks.sample_disk import build, change
from benchmarks.stores import Borg, Restic, Store

OURS = "wavelift, archive in a folder"


class Folder(Store):
    """Ours."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, {})
        self._state = folder / "state"

    def store(self, source: Path) -> Run:
        self._count += 1
        state = "--state" if self._count == 1 else "--since"
        return self._run(*_wavelift("copy", state, str(self._state), str(source), f"folder:{self._repository}"))

    def check(self, source: Path) -> None:
        target = self.folder / "back"
        measure.command(*_wavelift("copy", f"folder:{self._repository}", str(target)))
        measure.require_same(source, target)
        target.unlink()


def _wavelift(*words: str) -> list[str]:
    return [sys.executable, "-m", "wavelift.cli.main", *words]


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--changed", type=float, default=0.03, help="share of the disk's blocks")
    args = parser.parse_args()
    kinds: dict[str, Callable[[Path], Store]] = {OURS: Folder}
    if measure.have("borg"):
        kinds["borg, zstd,1, fixed 1 MiB"] = Borg
    if measure.have("restic"):
        kinds["restic"] = Restic
    with measure.scratch(args.folder) as folder:
        disk, later = folder / "now/disk.raw", folder / "later/disk.raw"
        for path in (disk, later):
            path.parent.mkdir()
            build(path, args.gib * GIB)
        changed = change(later, args.changed, 2)
        stores: dict[str, Store] = {}
        increments: dict[str, list[Run]] = {name: [] for name in kinds}
        current = folder / "disk.raw"

        def before(name: str) -> None:
            current.unlink(missing_ok=True)
            current.hardlink_to(disk)
            measure.warm(disk)
            stores[name] = kinds[name](folder / "store")

        def after(name: str) -> None:
            stores[name].check(current)
            # The same name with other content, and a later time of change.
            current.unlink()
            current.hardlink_to(later)
            later.touch()
            measure.warm(later)
            measure.quiet(args.patience)
            increments[name].append(stores[name].store(current))
            stores[name].check(current)
            shutil.rmtree(folder / "store")

        found = measure.in_turns(
            {name: lambda name=name: stores[name].store(current) for name in kinds}, args, before, after
        )  # type: ignore[misc]
        data = sum(end - start for start, end in measure.data_ranges(disk))
    print(
        f"{args.gib} GiB with {data / 1e9:.2f} GB of data, then {changed / 1e6:.0f} MB changed, {args.runs} runs, warm"
    )
    for title, runs in (("full", found), ("increment", increments)):
        measure.table([title, "s", "ours to it", "stored, MB", "ours to it", "peak MB"], _rows(runs))


def _rows(found: dict[str, list[Run]]) -> list[list[str]]:
    middle = measure.median
    seconds, stored = (
        {name: middle([value(run) for run in runs]) for name, runs in found.items()}
        for value in (lambda run: run.seconds, lambda run: run.stored)
    )
    return [
        [
            name,
            measure.seconds(runs),
            f"{seconds[OURS] / seconds[name]:.2f}",
            f"{stored[name] / 1e6:.0f}",
            f"{stored[OURS] / stored[name]:.2f}",
            f"{max(run.peaks[0] for run in runs):.0f}",
        ]
        for name, runs in found.items()
    ]


if __name__ == "__main__":
    main()
