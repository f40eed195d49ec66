"""A full copy of a disk over TCP loopback onto a volume, against nbdcopy and qemu-img convert.

python -m benchmarks.full_copy --folder /var/tmp --gib 8 --runs 5

The volume is a file that was written before, as a cloud's disk was: other bytes where the source has data, and some
where it has holes. Each tool has a volume of its own, spoiled before each run and compared byte for byte after it.
A copy is worth something once it is proven: ours by reading the volume back from the medium on the target's side, a
peer's by `qemu-img compare` with the source, which takes everything over the network once more.
--cold drops the page cache before each run (needs root); otherwise all find the source in it.
"""

import mmap
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks import measure
from benchmarks.measure import GIB, MIB, Run
from benchmarks.sample_disk import build
from benchmarks.services import Services

OURS = "wavelift, digests checked by the gateway"
OURS_TLS = f"{OURS}, over TLS"


def spoil(source: Path, volume: Path) -> None:
    """Fill a volume with what the source does not hold; past the page cache, so that none of it is in there."""
    with volume.open("ab") as file:
        file.truncate(source.stat().st_size)
    old = mmap.mmap(-1, MIB)
    old.write(os.urandom(MIB))
    fd = os.open(volume, os.O_WRONLY | os.O_DIRECT)
    try:
        end = 0
        for start, stop in measure.data_ranges(source):
            hole = (end + start) // 2 // 4096 * 4096
            os.pwrite(fd, memoryview(old)[: min(4096, start - end)], hole)
            for at in range(start, stop, MIB):
                os.pwrite(fd, memoryview(old)[: min(MIB, stop - at)], at)
            end = stop
        os.fsync(fd)
    finally:
        os.close(fd)


def over_nbd(source: Path, volume: Path, client: list[str]) -> Run:
    """A client that writes to nbdkit, `URI` standing for its address; durable at the end as both flush.

    And the comparison that proves it, the latter's part in `more`.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(["nbdkit", "-f", "-i", "127.0.0.1", "-p", str(port), "file", str(volume)])
    try:
        _wait_for(port, server)
        uri = f"nbd://127.0.0.1:{port}"
        run = measure.command(*(word.replace("URI", uri).replace("SOURCE", str(source)) for word in client))
        peaks = (*run.peaks, measure.peak(server.pid))
        _forget(volume)
        proof = measure.command("qemu-img", "compare", "-f", "raw", "-F", "raw", str(source), uri)
        return Run(run.seconds + proof.seconds, run.wire, peaks, more=proof.seconds)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def _forget(volume: Path) -> None:
    """Take what was written out of the page cache: a proof is of what is on the medium."""
    fd = os.open(volume, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if server.poll() is not None:
            raise RuntimeError("nbdkit did not start")
        time.sleep(0.01)


def ours(source: Path, volume: Path, parent: Path, tls: bool) -> Run:
    """The copy and the read-back that proves it, the latter's part in `more`."""
    with measure.scratch(parent) as folder, Services(folder, source, volume, source.stat().st_size, tls) as pair:
        run, result = pair.copy(1)
        verified = pair.verify(1, result["root"])
        return Run(run.seconds + verified.seconds, run.wire, verified.peaks, more=verified.seconds)


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--cold", action="store_true")
    args = parser.parse_args()
    measure.own_loopback()
    with measure.scratch(args.folder) as folder:
        source = folder / "source.raw"
        build(source, args.gib * GIB)
        clients = {}
        if measure.have("nbdkit", "nbdcopy", "qemu-img"):
            clients["nbdcopy to nbdkit"] = ["nbdcopy", "--flush", "SOURCE", "URI"]
        if measure.have("nbdkit", "qemu-img"):
            convert = ["qemu-img", "convert", "-n", "-W", "-m", "16", "-f", "raw", "-O", "raw", "SOURCE", "URI"]
            clients["qemu-img convert to nbdkit"] = convert
        volumes = {name: folder / f"{number}.volume" for number, name in enumerate([OURS, OURS_TLS, *clients])}
        tools = {name: partial(ours, source, volumes[name], folder, name == OURS_TLS) for name in (OURS, OURS_TLS)}
        tools |= {name: partial(over_nbd, source, volumes[name], client) for name, client in clients.items()}

        def before(name: str) -> None:
            spoil(source, volumes[name])
            if args.cold:
                measure.drop_caches()
            else:
                measure.warm(source)

        found = measure.in_turns(tools, args, before, lambda name: measure.require_same(source, volumes[name]))
        data = sum(end - start for start, end in measure.data_ranges(source))
    print(f"{args.gib} GiB with {data / 1e9:.2f} GB of data, {args.runs} runs, {'cold' if args.cold else 'warm'}")
    copied = {name: [replace(run, seconds=run.seconds - run.more) for run in runs] for name, runs in found.items()}
    for what, lines in (("copied", copied), ("copied and proven", found)):
        best = min(measure.median([run.seconds for run in lines[name]]) for name in clients)
        measure.table(
            [what, "s", "to the best peer", "on the wire, MB", "peak MB, source side", "target side"],
            [[name, measure.seconds(runs), *_row(runs, best)] for name, runs in lines.items()],
        )


def _row(runs: Sequence[Run], best: float) -> list[str]:
    middle = measure.median
    return [
        f"{middle([run.seconds for run in runs]) / best:.2f}",
        f"{middle([run.wire for run in runs]) / 1e6:.0f}",
        *(f"{max(run.peaks[side] for run in runs):.0f}" for side in (0, 1)),
    ]


if __name__ == "__main__":
    main()
