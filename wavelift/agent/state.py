"""The agent's folder of one migration: block maps of its disks, the journal under way, what is committed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from wavelift.agent.journal import VERSION, encode_line, read_lines
from wavelift.blocks.blockmap import DiskMap, MapStore
from wavelift.blocks.errors import MapError
from wavelift.blocks.files import write_durably
from wavelift.blocks.plan import Intervals
from wavelift.service.errors import Conflict, NotFound

NOTHING_KNOWN: dict[str, Any] = {
    **{"version": VERSION, "tokens": [], "disks": [], "base": None, "notes": []},
    **{"first": None, "kept_from": None, "on_volumes": True},
}


@dataclass(frozen=True)
class Committed:
    """The generation that was verified at the target, the volume that holds each disk, and the token that names
    each disk's moment to its source.

    `doubts`, by disk, are (start, end) bytes where the volume was found to hold something else than that generation:
    whatever comes next sends them.
    """

    generation: int
    volumes: Mapping[str, str]
    tokens: Mapping[str, str]
    doubts: Mapping[str, Sequence[tuple[int, int]]] = field(default_factory=dict)

    @property
    def doubted_bytes(self) -> int:
        return sum(end - start for found in self.doubts.values() for start, end in found)


class MigrationState:
    def __init__(self, root: Path, migration: str) -> None:
        self.migration = migration
        self.folder = root / "migrations" / migration
        self._committed = self.folder / "committed.json"

    def maps(self, disk: str) -> MapStore:
        return MapStore(self.folder / "maps" / disk)

    def work(self, generation: int) -> Path:
        return self.folder / "work" / str(generation)

    def table(self, generation: int, disk: str) -> Path:
        return self.work(generation) / f"{disk}.table"

    def journal(self, generation: int) -> Path:
        return self.work(generation) / "journal"

    def _finished(self, generation: int) -> Path:
        return self.work(generation) / "finished.json"

    def committed(self) -> Committed | None:
        try:
            raw = json.loads(self._committed.read_text())
        except FileNotFoundError:
            return None
        return Committed(
            int(raw["generation"]), dict(raw["volumes"]), dict(raw.get("tokens", {})), _doubts(raw.get("doubts", {}))
        )

    def committed_at(self) -> float:
        """When the last commit was, in seconds since the epoch. Raises OSError without one."""
        return self._committed.stat().st_mtime

    def touched(self) -> list[int]:
        """Generations that were begun and not committed: the volumes may hold parts of them."""
        committed = self.committed()
        found = sorted(int(path.parent.name) for path in self.folder.glob("work/*/journal"))
        # A commit cut short may have left the work of its own generation.
        return [number for number in found if committed is None or number != committed.generation]

    def require_later(self, generation: int) -> None:
        """Raises `Conflict` unless the generation comes after the committed one: the volumes would hold parts of
        another content under its number, and nobody would know."""
        committed = self.committed()
        if committed is not None and generation <= committed.generation:
            raise Conflict(
                f"Generation {committed.generation} of {self.migration!r} is committed: {generation} cannot be "
                "replicated any more.",
                f"Replicate generation {committed.generation + 1}.",
            )

    def unfinished(self, generation: int) -> None:
        """Called before volumes are written to: what an earlier attempt ended with is what they hold no longer."""
        self._finished(generation).unlink(missing_ok=True)

    def finished(
        self, generation: int, result: Mapping[str, Any], volumes: Mapping[str, str], tokens: Mapping[str, str]
    ) -> None:
        report = {"result": dict(result), "volumes": dict(volumes), "tokens": dict(tokens)}
        write_durably(self._finished(generation), json.dumps(report).encode())

    def ended_with(self, generation: int, volumes: Mapping[str, str]) -> dict[str, Any] | None:
        """The result of a generation that was copied to those volumes by disk and is not committed; None without."""
        try:
            report = json.loads(self._finished(generation).read_text())
        except FileNotFoundError:
            return None
        result: dict[str, Any] = report["result"]
        return result if report["volumes"] == volumes else None

    def kept_from(self, generation: int) -> int:
        """The first of the packs that what is there of a generation lies in. Raises `NotFound` for one not begun."""
        begun = self.begun(generation)
        if begun is None or begun["kept_from"] is None:
            raise NotFound(f"Generation {generation} of {self.migration!r} was not begun here.", "Replicate it.")
        return int(begun["kept_from"])

    def map(self, disk: str, generation: int) -> DiskMap:
        """Raises `MapError`: none, or a damaged one."""
        found = self.maps(disk).load(generation)
        if found is None:
            raise MapError(
                f"The block map of disk {disk}, generation {generation}, is not here any more.",
                "Replicate a new generation.",
            )
        return found

    def restart(self, generation: int) -> None:
        """Drop the digests of a generation. Its journal stays until a new one replaces it in one step:
        that it was begun must not be forgotten, the volumes hold parts of it."""
        for path in self.work(generation).glob("*.table"):
            path.unlink()

    def disown(self, generation: int) -> None:
        """What was read or put of a generation is not to be relied on: the next attempt begins afresh."""
        self.unfinished(generation)
        begun = self.begun(generation) or NOTHING_KNOWN
        # No attempt is of no moment and no disks, so the next one is another.
        write_durably(self.journal(generation), encode_line({**begun, "tokens": [], "disks": []}))

    def begun(self, generation: int) -> dict[str, Any] | None:
        lines = read_lines(self.journal(generation))
        if lines and lines[0].get("version") != VERSION:
            # Of what another version of the agent began, only that it did can be told.
            return NOTHING_KNOWN
        return lines[0] if lines else None

    def begun_tokens(self, generation: int) -> dict[str, str]:
        """By disk, what names the moment of the attempt at a generation that was begun; empty without one."""
        begun = self.begun(generation) or {}
        disks, tokens = begun.get("disks") or (), begun.get("tokens") or ()
        return {disk: token for (disk, _volume), token in zip(disks, tokens, strict=True)}

    def commit(self, generation: int) -> Committed:
        """Make a finished generation the base of the next, proven, so of no doubts; what is committed, now or by a
        later one before.

        Raises `NotFound` when it never finished.
        """
        before = self.committed()
        if before is not None and generation <= before.generation:
            # Of a commit cut short. Maps stay: one of a generation that is finished by now may be among them.
            self._drop_work(generation)
            return before
        return self._settle(replace(self.known(generation), doubts={}))

    def suspect(self, generation: int, doubts: Mapping[str, Sequence[tuple[int, int]]]) -> None:
        """Note where the volumes hold something else than a generation, or are about to, in place of what was noted.
        It becomes no base by this. Raises `NotFound` as `known` does.
        """
        known = replace(self.known(generation), doubts=doubts)
        if (committed := self.committed()) is not None and committed.generation == generation:
            write_durably(self._committed, json.dumps(asdict(known)).encode())
        else:
            report = json.loads(self._finished(generation).read_text())
            write_durably(self._finished(generation), json.dumps({**report, "doubts": known.doubts}).encode())

    def doubt(self, generation: int, doubts: Mapping[str, Sequence[tuple[int, int]]]) -> Committed:
        """Make a generation the base of the next although its volumes hold something else at `doubts`: the next
        one sends those. Raises `NotFound` as `known` does.
        """
        known = self.known(generation)
        disks = {*known.doubts, *doubts}
        joined = {disk: list(Intervals([*known.doubts.get(disk, ()), *doubts.get(disk, ())])) for disk in disks}
        return self._settle(replace(known, doubts=joined))

    def known(self, generation: int) -> Committed:
        """A generation that was replicated last, committed or not. Raises `NotFound` for any other."""
        committed = self.committed()
        if committed is not None and committed.generation == generation:
            return committed
        try:
            report = json.loads(self._finished(generation).read_text())
        except FileNotFoundError:
            raise NotFound(
                f"Generation {generation} of {self.migration!r} was never replicated here.",
                "Name the generation of the replicate job that succeeded last.",
            ) from None
        return Committed(
            generation, dict(report["volumes"]), dict(report.get("tokens", {})), _doubts(report.get("doubts", {}))
        )

    def _settle(self, now: Committed) -> Committed:
        # The volumes are known to hold this generation: whatever was begun before is of no account now.
        for older in self.touched():
            if older < now.generation:
                shutil.rmtree(self.work(older), ignore_errors=True)
        write_durably(self._committed, json.dumps(asdict(now)).encode())
        for disk in now.volumes:
            self.maps(disk).prune([now.generation])
        self._drop_work(now.generation)
        return now

    def _drop_work(self, generation: int) -> None:
        for path in self.folder.glob("work/*"):
            if int(path.name) <= generation:
                shutil.rmtree(path, ignore_errors=True)

    def forget(self) -> None:
        if self.folder.exists():
            shutil.rmtree(self.folder)


def _doubts(raw: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, list[tuple[int, int]]]:
    return {disk: [(start, end) for start, end in found] for disk, found in raw.items()}
