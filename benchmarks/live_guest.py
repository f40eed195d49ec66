"""What replication costs the guest that is replicated: transactions a second with and without it.

python -m benchmarks.live_guest --folder /var/tmp --runs 5

The guest is tests/sources/live_guest.py: two databases on two disks under steady writes, under emulation. Windows of
`--seconds` without and with replication take turns; in the latter the first disk is replicated cycle after cycle
over QMP, agent and gateway, with its file systems frozen for the instant. Needs root only for a quiet loopback.
"""

import statistics
import sys
import time
from collections.abc import Callable

from benchmarks import measure
from benchmarks.services import Services
from tests.sources.live_guest import SIZES, LiveGuest


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=30, help="of each window")
    args = parser.parse_args()
    with measure.scratch(args.folder) as folder:
        volume = folder / "volume"
        with volume.open("wb") as file:
            file.truncate(SIZES["first"])
        (folder / "guest").mkdir()
        guest = LiveGuest(folder / "guest")
        try:
            guest.wait_for(50)
            source = guest.source("first", freeze=True)
            with Services(folder / "services", source, volume, SIZES["first"]) as services:
                report(guest, services, args.runs, args.seconds)
        finally:
            guest.stop()


def report(guest: LiveGuest, services: Services, runs: int, seconds: float) -> None:
    first, _ = services.copy(1)
    services.commit(1)
    generation = 1
    alone, beside, cycles, wire = [], [], [], []
    for number in range(runs):
        alone.append(rate(guest, lambda: time.sleep(seconds)))
        durations: list[float] = []

        def replicate(durations: list[float] = durations) -> None:
            nonlocal generation
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                run, _ = services.copy(generation + 1, generation)
                generation += 1
                services.commit(generation)
                durations.append(run.seconds)
                wire.append(run.wire)

        beside.append(rate(guest, replicate))
        cycles += durations
        print(f"{number + 1}/{runs}: {alone[-1]:.1f} and {beside[-1]:.1f}", file=sys.stderr, flush=True)
    print(f"first copy: {first.seconds:.1f} s")
    print(f"cycles: {len(cycles)}, median {statistics.median(cycles):.2f} s, longest {max(cycles):.2f} s")
    print(f"on the wire per cycle, median: {statistics.median(wire) / 1e6:.1f} MB")
    print("| transactions/s | median | lowest | highest |\n|---|---|---|---|")
    for name, found in (("alone", alone), ("replicated all the time", beside)):
        print(f"| {name} | {statistics.median(found):.1f} | {min(found):.1f} | {max(found):.1f} |")
    print(f"ratio of the medians: {statistics.median(beside) / statistics.median(alone):.2f}")


def rate(guest: LiveGuest, window: Callable[[], None]) -> float:
    """Transactions a second while it runs."""
    before, began = guest.committed(), time.monotonic()
    window()
    return (guest.committed() - before) / (time.monotonic() - began)


if __name__ == "__main__":
    main()
