"""`wavelift offline verify`: whether disks hold what they should, and what is lost where they do not."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wavelift.archive.archive import Archive
from wavelift.archive.errors import Damaged
from wavelift.archive.keys import KeyOf, derived, read_master
from wavelift.archive.layout import Generation
from wavelift.archive.survey import SeenArchive, survey
from wavelift.archive.verify import verify
from wavelift.blocks.errors import MapError
from wavelift.blocks.plan import Intervals
from wavelift.cli.report import DIFFERENT, SAME, Watch, run_reporting
from wavelift.cli.units import size
from wavelift.offline.checking import Check, Finding
from wavelift.stores.base import Corrupted, StoreError
from wavelift.stores.offline import OfflineStore

_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="where a disk of the set is mounted")
    parser.add_argument(
        "--key-file",
        type=Path,
        metavar="FILE",
        help="open what is sealed and check every block; without it the digests in the names of packs are checked",
    )


def run(args: argparse.Namespace) -> int:
    def work(watch: Watch) -> int:
        watch.step("opening")
        key = None if args.key_file is None else derived(read_master(args.key_file))
        store = OfflineStore(args.folders)
        found = _Verification(store, survey(store), key, watch)
        found.run()
        watch.display.result(found.fields(), found.text())
        return DIFFERENT if found.findings or store.absent else SAME

    return run_reporting(args.json, work, lambda: "Nothing is known of what was not read.")


class _Verification:
    def __init__(self, store: OfflineStore, archives: list[SeenArchive], key: KeyOf | None, watch: Watch) -> None:
        self._store = store
        self._archives = archives
        self._key = key
        self._watch = watch
        self._packs = 0
        self.findings: list[Finding] = []
        # Bytes of the disk image, by the archive's prefix and generation.
        self._lost: dict[tuple[str, int], list[tuple[int, int]]] = {}
        self._opened: list[str] = []

    def run(self) -> None:
        """Raises `KeyMissing`, `ArchiveError`, `StoreError`, and what the watch does."""
        opened = [each for each in self._archives if not each.sealed or self._key is not None]
        # Where all is opened no pack needs to be read for its name's sake too.
        whole = len(opened) == len(self._archives) and not self._store.absent
        if not self._store.absent:
            for archive in opened:
                whole = self._open(archive) and whole
        self._watch.step("reading")
        names = Check(self._store, self._watch.check, self._progress, packs=not whole)
        by_name = names.run()
        # Which disk a pack is lost from shows here only.
        named = {finding.key for finding in by_name}
        self.findings = [each for each in self.findings if each.disks or each.key not in named]
        known = {finding.key for finding in self.findings}
        for finding in by_name:
            if finding.key not in known:
                self.findings.append(finding)
            if finding.generation is not None and finding.archive not in self._opened:
                self._note_lost(finding.archive, finding.generation, [(finding.start, finding.end)])
        self.findings.sort(key=lambda finding: finding.key)
        self._packs += names.packs

    def fields(self) -> dict[str, Any]:
        lost = [
            {"archive": prefix, "generation": number, "ranges": list(Intervals(ranges))}
            for (prefix, number), ranges in sorted(self._lost.items())
        ]
        return {
            "set": self._store.set_id,
            "sound": not self.findings and not self._store.absent,
            "missing": list(self._store.absent),
            "packs": self._packs,
            "opened": self._opened,
            "findings": [asdict(finding) for finding in self.findings],
            "lost": lost,
        }

    def text(self) -> str:
        fields = self.fields()
        lines = [f"{self._packs} packs read; {len(self.findings)} objects are damaged or missing"]
        if self._archives and not self._opened:
            lines[0] += "; checked by the digests in their names, nothing was opened"
        lines += [f"  disk {label} is missing" for label in fields["missing"]]
        for finding in self.findings[:_SHOWN]:
            where = f" on {', '.join(finding.disks)}" if finding.disks else ""
            lines.append(f"  {finding.key}{where}: {finding.why}")
        if len(self.findings) > _SHOWN:
            lines.append(f"  and {len(self.findings) - _SHOWN} more; --json names all of them")
        for each in fields["lost"]:
            of = f" of {each['archive']}" if each["archive"] else ""
            lost = sum(end - start for start, end in each["ranges"])
            lines.append(f"lost of generation {each['generation']}{of}: {size(lost)}")
            lines += [f"  bytes {start} to {end}" for start, end in each["ranges"][:_SHOWN]]
            if len(each["ranges"]) > _SHOWN:
                lines.append(f"  and {len(each['ranges']) - _SHOWN} more; --json names all of them")
        return "\n".join(lines)

    def _open(self, seen: SeenArchive) -> bool:
        """Whether all of it could be read, sound or not. Raises `KeyMissing`, `ArchiveError`."""
        self._watch.step(f"verifying {seen.prefix}".rstrip())
        before = list(self.findings), self._packs, dict(self._lost)
        try:
            archive = Archive.open(seen.within(self._store), self._key if seen.sealed else None)
            generations = []
            for number in archive.generations():
                try:
                    generations.append(archive.load(number))
                except Damaged as error:
                    self._flaw(seen, number, error.key, error.message)
            built_on = {each.base for each in generations}
            for each in generations:
                self._generation(seen, archive, each, newest=each.generation not in built_on)
        except StoreError as error:
            # A disk that cannot be read: which of its packs are good is found without opening them.
            self._watch.display.note(f"{seen.prefix or 'the archive'} cannot be opened whole: {error.message}")
            self.findings, self._packs, self._lost = before
            return False
        self._opened.append(seen.prefix)
        return True

    def _generation(self, seen: SeenArchive, archive: Archive, each: Generation, *, newest: bool) -> None:
        """Raises `StoreError`."""
        try:
            if not newest:
                # Its packs are read for the one that is built on it.
                archive.map(each).require_tables(self._watch.check)
                return
            verdict = verify(archive, each.generation, self._watch.check, lambda done, all_: self._progress(all_, done))
        except (Damaged, Corrupted, MapError) as error:
            self._flaw(seen, each.generation, error.key if isinstance(error, Damaged) else "", error.message)
            return
        self._packs += verdict.packs
        for flaw in verdict.flaws:
            self._flaw(seen, each.generation, flaw.key, flaw.why)
        if verdict.lost:
            self._note_lost(seen.prefix, each.generation, verdict.lost)

    def _flaw(self, seen: SeenArchive, number: int, key: str, why: str) -> None:
        full = f"{seen.prefix}/{key}" if seen.prefix else key
        disks = tuple(disk.label.label for disk in self._store.holders(full)) if key else ()
        self.findings.append(Finding(full, why, disks, seen.prefix, number))

    def _note_lost(self, prefix: str, number: int, ranges: Iterable[tuple[int, int]]) -> None:
        self._lost[prefix, number] = [*self._lost.get((prefix, number), ()), *ranges]

    def _progress(self, total: int, done: int) -> None:
        self._watch.progress(total=total, done=done, read=done)
