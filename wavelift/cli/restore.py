"""`wavelift restore`: any generation of an archive, by whole packs, to a file, a device or an NBD export."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from wavelift.archive.archive import Archive
from wavelift.archive.errors import BlocksLost, NoGeneration
from wavelift.archive.layout import packs_prefix
from wavelift.archive.opening import parse_place
from wavelift.blocks.blockmap import DiskMap, segments_of, write_map
from wavelift.blocks.plan import Intervals
from wavelift.cli.copystate import StateUnusable
from wavelift.cli.footing import Ranges
from wavelift.cli.keys import add_key_file, key_of
from wavelift.cli.report import DIFFERENT, SAME, Watch, run_reporting
from wavelift.cli.restore_report import Restored, show_generations
from wavelift.cli.restore_target import RestoreTarget, target_for
from wavelift.cli.targets import TargetRefused
from wavelift.holding import InUse, held
from wavelift.hydrate.hydrate import Hydrated, hydrate
from wavelift.hydrate.join import NotJoined
from wavelift.hydrate.journal import Subject, Work, marked

EXAMPLES = """\
examples:
  wavelift restore --list --key-file archive.key oss://backups/web
  wavelift restore --key-file archive.key oss://backups/web web.raw          the newest generation
  wavelift restore --overwrite offline:/mnt/a,/mnt/b@3 /dev/sdb              generation 3, to a device
  wavelift restore --state web.state s3://backups/web nbd://10.0.0.9/web --overwrite
                                     repeat the command after a failure: it goes on where it was

PLACE is folder:DIR, offline:DIR[,DIR...], oss://BUCKET/PREFIX or s3://BUCKET/PREFIX, with @GENERATION at its end for
one that is not the newest. A new file has .incomplete at the end of its name until it is whole. A generation whose base
lies elsewhere is restored onto a target that holds the base.

exit status: 0 done, 1 the target does not hold all of it (what is missing or differs is named), 2 wrong usage or
failed, 128 + N after signal N
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("place", metavar="PLACE[@GENERATION]", help="the archive")
    parser.add_argument("target", metavar="TARGET", nargs="?", help="file, block device, nbd://...")
    parser.add_argument("--list", action="store_true", help="show the generations that are there, and restore none")
    add_key_file(parser)
    parser.add_argument("--verify", choices=("full", "sample"), default="full", help="how much is read back (full)")
    parser.add_argument("--state", type=Path, metavar="DIR", help="where is kept what is done, to go on from it")
    parser.add_argument("--overwrite", action="store_true", help="the target may be a device, or a file with content")
    parser.add_argument("--partial", action="store_true", help="restore what is sound of a damaged archive")
    parser.add_argument("--json", action="store_true", help="progress and result as JSON, one object a line")


def run(args: argparse.Namespace) -> int:
    again = "Repeat the command to go on." if args.state else "Nothing of it is kept: --state DIR lets it go on."
    return run_reporting(args.json, lambda watch: _run(args, watch), lambda: again)


def _run(args: argparse.Namespace, watch: Watch) -> int:
    watch.step("opening")
    place = parse_place(args.place, generation=True)
    archive = Archive.open(place.store(), key_of(args))
    numbers = archive.generations()
    if args.list:
        show_generations(archive, numbers, watch.display)
        return SAME
    if args.target is None:
        raise TargetRefused("No target is named.", "Name a file, a block device or an NBD export; or give --list.")
    number = place.generation or max(numbers, default=0)
    if number not in numbers:
        raise NoGeneration(archive.name, number, numbers)
    target = target_for(args.target)
    with _folder(args.state) as folder, ExitStack() as stack:
        restore = _Restore(archive, number, target, folder, args.partial, watch)
        return restore.run(args, stack)


class _Restore:
    def __init__(
        self, archive: Archive, number: int, target: RestoreTarget, folder: Path, partial: bool, watch: Watch
    ) -> None:
        self._archive = archive
        self._chain = list(archive.chain(number))
        self._wanted = archive.map(self._chain[0])
        self._target = target
        self._folder = folder
        self._partial = partial
        self._watch = watch

    def run(self, args: argparse.Namespace, stack: ExitStack) -> int:
        began, watch, target = time.monotonic(), self._watch, self._target
        if self._base_root is not None and not target.exists:
            raise self._not_joined(None)
        if not self._partial:
            self._require_there()
        work_folder = self._folder / "work"
        ours = marked(work_folder)
        behind = stack.enter_context(target.held(self._wanted.size, lambda found: args.overwrite or found == ours))
        if behind:
            watch.display.note(f"the target is larger than the disk: its last {behind} bytes stay as they are")
        try:
            work = self._work(work_folder)
            stack.callback(work.close)
            watch.step("restoring")
            done = hydrate(self._archive, self._chain, work, target, check=lambda: self._look(work))
            if done.missing and not self._partial:
                raise BlocksLost(self._wanted.disk, done.missing, done.damaged)
            watch.step("verifying")
            wrong = self._wrong(done, args.verify)
        except BaseException:
            if args.state is None:
                target.discard()
            raise
        work.discard()
        if not wrong:
            target.keep()
        restored = Restored(args, self._chain[0], done, wrong, time.monotonic() - began)
        watch.display.result(restored.fields(), restored.text())
        return DIFFERENT if wrong or done.missing else SAME

    @property
    def _base_root(self) -> str | None:
        """Of what the chain builds on and does not have."""
        return self._chain[-1].base_root if self._chain[-1].base is not None else None

    def _not_joined(self, root: str | None) -> NotJoined:
        last = self._chain[-1]
        assert last.base is not None
        return NotJoined(self._archive.name, self._chain[0].generation, last.base, str(last.base_root), root)

    def _require_there(self) -> None:
        """Every pack that is listed, by the store's own lists: before anything is written. Raises `BlocksLost`."""
        lost: list[str] = []
        ranges = Intervals()
        for generation in self._chain:
            prefix = packs_prefix(generation.generation)
            there = {entry.key: entry.size for entry in self._archive.bare.list(prefix)}
            packs = self._archive.packs(generation)
            for row in packs:
                if there.get(packs.key(row)) != row.size:
                    lost.append(packs.key(row))
                    ranges.add(row.start, min(row.end, self._wanted.size))
        if lost:
            raise BlocksLost(self._wanted.disk, list(ranges), lost)

    def _work(self, folder: Path) -> Work:
        subject = Subject(self._archive.id, self._chain[0].root, self._base_root, self._target.id)
        resumed = Work.resume(folder, subject, self._wanted)
        if resumed is not None:
            return resumed
        base = None if self._base_root is None else self._base()
        self._watch.step("planning")
        return Work.begin(folder, subject, self._wanted, base, self._target.zeroed, self._watch.check)

    def _base(self) -> DiskMap:
        """What the target holds, when that is what the generation builds on. Raises `NotJoined`."""
        self._watch.step("reading back what it builds on")
        size = self._wanted.size
        with ExitStack() as stack:
            lies = self._target.tables(size, stack, self._watch)
            tables = (lies.table(number) for number in range(segments_of(size)))
            found = write_map(self._folder / "base.map", self._wanted.disk, size, tables)
        if found.root.hex() != self._base_root:
            raise self._not_joined(found.root.hex())
        return found

    def _look(self, work: Work) -> None:
        self._watch.check()
        size = self._wanted.size
        self._watch.progress(total=size, done=size - work.left.bytes, wire=work.wire_bytes, written=work.written_bytes)

    def _wrong(self, done: Hydrated, how: str) -> Ranges:
        """What differs beside what is missing."""
        found = self._target.differing(self._wanted, how, self._watch)
        if found and how != "full":
            self._watch.display.note("the sample is not right: all of the target is read back")
            found = self._target.differing(self._wanted, "full", self._watch)
        missing = Intervals(done.missing)
        return [part for start, end in found for part in missing.missing(start, end)]


@contextmanager
def _folder(state: Path | None) -> Iterator[Path]:
    """The state's, for this process alone, or a passing one. Raises `StateUnusable`, OSError."""
    if state is None:
        # Tables of a large disk take gigabytes; /tmp may be memory.
        place = os.environ.get("TMPDIR", "/var/tmp")
        with tempfile.TemporaryDirectory(prefix="wavelift-restore-", dir=place) as folder:
            yield Path(folder)
        return
    if state.exists() and (not state.is_dir() or (any(state.iterdir()) and not (state / "restore.lock").exists())):
        raise StateUnusable(f"{state} is not empty and holds no state of a restore.", "Name another folder.")
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with held(state / "restore.lock"):
            yield state
    except InUse as error:
        raise StateUnusable(
            f"Another restore is using the state {state}: {error.who}.", "Wait until it ends."
        ) from None
