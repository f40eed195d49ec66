"""Increments found by reading the whole disk, against rsync, blocksync-fast, bdsync, and later runs of borg and restic.

python -m benchmarks.increments_scan --folder /var/tmp --gib 8 --runs 5 --changed 0.03

Each round changes the disk (64 KiB blocks at random places among the data), then each tool brings its own copy from
the former content to the new one, and is compared byte for byte; so every run starts from a base that was proven.
Ours and rsync go over TCP loopback. blocksync-fast and bdsync are taken from the PATH if they are there: no registry
has them, docs/performance.md says how to build them.
"""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks import measure
from benchmarks.measure import GIB, Run
from benchmarks.sample_disk import build, change
from benchmarks.services import Services
from benchmarks.stores import Borg, Restic

OURS = "wavelift, scan"


def ours(pair: Services, source: Path) -> Callable[[], Run]:
    """The first generation now; then one more with each call."""
    pair.copy(1)
    pair.commit(1)
    generation = 1

    def run() -> Run:
        nonlocal generation
        generation += 1
        done, result = pair.copy(generation, generation - 1)
        pair.commit(generation)
        if result["base_used"] is None:
            raise RuntimeError(f"no increment: {result['notes']}")
        return done

    return run


@contextmanager
def rsync_daemon(folder: Path) -> Iterator[str]:
    """The URL of a folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = folder / "rsyncd.conf"
    rights = f"uid = {os.getuid()}\ngid = {os.getgid()}"
    settings.write_text(f"use chroot = no\n[to]\npath = {folder}\nread only = no\n{rights}\n")
    words = ["rsync", "--daemon", "--no-detach", "--address=127.0.0.1", f"--port={port}", f"--config={settings}"]
    server = subprocess.Popen(words)
    try:
        yield f"rsync://127.0.0.1:{port}/to/"
    finally:
        server.terminate()
        server.wait()


def synced(program: str, *words: str | Path) -> Callable[[], Run]:
    """A local program whose last argument is its target, made durable after it."""
    line = f'{program} "$@" && for target; do :; done && sync "$target"'
    return partial(measure.command, "sh", "-c", line, "sh", *words)


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--changed", type=float, default=0.03, help="share of the disk's blocks")
    args = parser.parse_args()
    measure.own_loopback()
    with measure.scratch(args.folder) as folder, ExitStack() as stack:
        source = folder / "disk.raw"
        build(source, args.gib * GIB)
        tools: dict[str, Callable[[], Run]] = {}
        checks: dict[str, Callable[[], None]] = {}

        def volume(name: str, run: Callable[[], Run], target: Path) -> None:
            tools[name] = run
            checks[name] = partial(measure.require_same, source, target)

        target = folder / "wavelift"
        with target.open("wb") as file:
            file.truncate(args.gib * GIB)
        pair = stack.enter_context(Services(folder / "services", source, target, args.gib * GIB))
        volume(OURS, ours(pair, source), target)
        if measure.have("rsync"):
            url = stack.enter_context(rsync_daemon(folder)) + "rsync"
            words = ["rsync", "--inplace", "--no-whole-file", "--fsync", source, url]
            volume("rsync --inplace", partial(measure.command, *words), folder / "rsync")
        if measure.have("blocksync-fast"):
            words = ["--silent", "-b", "64K", "-f", folder / "digests", "-s", source, "-d", folder / "blocksync"]
            volume("blocksync-fast, digest file", synced("blocksync-fast", *words), folder / "blocksync")
        if measure.have("bdsync"):
            line = 'bdsync --blocksize=65536 --diffsize "bdsync --server" "$1" "$2" >"$2.diff"'
            line += ' && bdsync --patch="$2" <"$2.diff" && sync "$2"'
            subprocess.run(["cp", "--sparse=always", source, folder / "bdsync"], check=True)
            words = ["sh", "-c", line, "sh", source, folder / "bdsync"]
            volume("bdsync", partial(measure.command, *words), folder / "bdsync")
        for name, kind in (("borg", Borg), ("restic", Restic)):
            if measure.have(name):
                store = kind(folder / f"{name}.store")
                tools[name] = partial(store.store, source)
                checks[name] = partial(store.check, source)
        for name, run in tools.items():
            if name != OURS:
                run()
            checks[name]()
        seeds = count(2)
        changed: list[int] = []

        def before(name: str) -> None:
            if name == OURS:
                changed.append(change(source, args.changed, next(seeds)))
            measure.warm(source)

        found = measure.in_turns(tools, args, before, lambda name: checks[name]())
    print(f"{args.gib} GiB, {measure.median(changed) / 1e6:.0f} MB of blocks changed, {args.runs} runs, warm")
    ours_seconds = measure.median([run.seconds for run in found[OURS]])
    rows = [
        [
            name,
            measure.seconds(runs),
            f"{ours_seconds / measure.median([run.seconds for run in runs]):.2f}",
            _moved(runs),
        ]
        for name, runs in found.items()
    ]
    measure.table(["", "s", "ours to it", "sent or stored, MB"], rows)


def _moved(runs: Sequence[Run]) -> str:
    """MB; a local program sends nothing that could be counted."""
    amount = measure.median([run.stored or run.wire for run in runs])
    return f"{amount / 1e6:.0f}" if amount > 1e5 else "-"


if __name__ == "__main__":
    main()
