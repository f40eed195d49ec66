"""What a replication builds on: the maps of its base, and whether what the tracker says of it is believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

from wavelift.agent.carriers import all_at_rest, another_volume
from wavelift.agent.doubts import doubted
from wavelift.agent.journal import acknowledged
from wavelift.agent.state import MigrationState
from wavelift.agent.tracker import clean, disproof, keep_only, still_there
from wavelift.blocks.attempts import first_sequence
from wavelift.blocks.blockmap import DiskMap
from wavelift.blocks.errors import MapError
from wavelift.blocks.plan import Intervals
from wavelift.blocks.worktable import WorkTable
from wavelift.sources.base import PointInTime
from wavelift.sources.together import Resumable, Tracked


class BaseChoice:
    """All disks have a base or none has. `about` is what the journal begins with: it names the choice.

    `tracked`, by disk: only what the tracker calls changed is read. `unsure`: the volumes may hold another content of
    what changed since the base, so all of it is sent, compared or not. `doubts`: where they do not hold what the base
    says, by disk. `fresh`: nothing of a former attempt stands; else `kept` of it, by disk, since the packs that `about`
    names as `kept_from`.
    """

    def __init__(
        self,
        state: MigrationState,
        generation: int,
        base: int | None,
        volumes: Mapping[str, str],
        sources: Sequence[PointInTime],
        check: Callable[[], None],
    ) -> None:
        """`volumes` by disk, in the order of `sources`."""
        self._state = state
        self._generation = generation
        self._base = base
        self._volumes = volumes
        self._sources = sources
        self._check = check
        self.notes = [note for source in sources if isinstance(source, Tracked) for note in source.notes]
        self.tracked = {
            disk: isinstance(source, Tracked) and source.tracked for disk, source in zip(volumes, sources, strict=True)
        }
        self._at_rest = all_at_rest(volumes.values())
        self.unsure = False
        self.fresh = False
        self.kept: list[Intervals] | None = None
        self.about: dict[str, Any] = {
            "tokens": [source.token for source in sources],
            "disks": [list(pair) for pair in volumes.items()],
        }
        maps = self._prove_tracker(self._load())
        if self.fresh:
            self.about["kept_from"] = self.about["first"]
        committed = state.committed()
        based = committed is not None and committed.generation == self.about["base"]
        self.doubts = committed.doubts if committed is not None and based else {}
        self.maps = [doubted(found, self.doubts.get(disk, ())) for disk, found in zip(volumes, maps, strict=True)]

    def _load(self) -> list[DiskMap | None]:
        about, generation = self.about, self._generation
        begun = self._state.begun(generation)
        same = begun is not None and all(begun.get(field) == about[field] for field in ("tokens", "disks"))
        usable = begun["base"] if begun is not None and same else self._usable_base()
        former = None if begun is None else begun["first"]
        about["first"] = about["kept_from"] = former if same else first_sequence(former)
        # A volume that an attempt at this generation wrote to holds parts of it, wherever the next one goes.
        about["on_volumes"] = not self._at_rest or (begun is not None and begun["on_volumes"])
        if begun is not None and same:
            about["base"], about["kept_from"] = begun["base"], begun["kept_from"]
            about["notes"] = begun["notes"]
            # What was done under these very tokens stands, and nothing tells now what it took over.
            self.tracked = dict.fromkeys(self._volumes, False)
            self._drop_the_rest()
        elif begun is not None and begun["disks"] == about["disks"] and (kept := self._still_there(begun, usable)):
            self.notes.append("the source moved on since this generation was begun: what was written is sent again")
            self.unsure = not self._at_rest
            self.kept = kept
            about["base"], about["kept_from"] = begun["base"], begun["kept_from"]
        elif begun is not None and (self._at_rest or not begun["on_volumes"]):
            self.notes.append("this generation was begun before, of another moment or elsewhere: it is sent afresh")
            self._restart()
            about["base"] = usable
        elif begun is not None and any(self.tracked.values()) and begun["base"] == usable is not None:
            self.notes.append("the source moved on since this generation was begun: what changed is sent again")
            self._restart()
            self.unsure = True
            about["base"] = begun["base"]
        elif begun is not None:
            self.notes.append("the source changed since this generation was begun: everything is sent again")
            self._restart()
            about["base"] = None
        else:
            about["base"] = usable
            # Tables that a start cut short left would be taken for digests of zeroes.
            self._state.restart(generation)
        self.notes += about.get("notes", [])
        maps: list[DiskMap | None] = [None] * len(self._sources)
        if about["base"] is not None:
            try:
                maps = [self._state.maps(disk).load(about["base"]) for disk in self._volumes]
                for found in maps:
                    if found is not None:
                        # All of them now: a table that fails midway would fail each attempt.
                        found.require_tables(self._check)
            except MapError as error:
                self.notes.append(error.message)
                maps = [None] * len(self._sources)
            fits = all(
                found is not None and found.size == source.size
                for found, source in zip(maps, self._sources, strict=True)
            )
            if not fits:
                self.notes.append(f"the block maps of generation {about['base']} cannot be used: full copy")
                about["base"], maps = None, [None] * len(self._sources)
                self.kept = None
                self._restart()
        about["notes"] = self.notes
        return maps

    def _prove_tracker(self, maps: list[DiskMap | None]) -> list[DiskMap | None]:
        for disk, source, base in zip(self._volumes, self._sources, maps, strict=True):
            if not self.tracked[disk] or base is None:
                self.tracked[disk] = False
                continue
            at = disproof(source, source.extents(), base.table, self._check)
            if at is not None:
                self.tracked[disk] = False
                self.notes.append(
                    f"disk {disk}: the block at byte {at} differs, and the tracker called it unchanged: "
                    "changes are found by a scan"
                )
                if self.kept is not None:
                    # It was the same tracker that told what still stands.
                    self.kept = None
                    self._restart()
        self.about["tracked"] = self.tracked
        if self.unsure and not any(self.tracked.values()):
            self.about["base"] = None
            return [None] * len(maps)
        return maps

    def _still_there(self, begun: dict[str, Any], usable: int | None) -> list[Intervals] | None:
        """What the attempt that was cut short brought and nothing was written to since, by disk; None when that
        cannot be told of all disks. Digests of the rest are dropped."""
        if begun["base"] not in (None, usable):
            return None
        told = [source.written() if isinstance(source, Resumable) else None for source in self._sources]
        tallies = acknowledged(self._state.journal(self._generation), len(self._sources))
        kept: list[Intervals] = []
        for disk, source, written, tally in zip(self._volumes, self._sources, told, tallies, strict=True):
            if written is None:
                return None
            # A tracker that was not believed then is not believed now.
            believed = begun["base"] is None or (begun["tracked"][disk] and self.tracked[disk])
            kept.append(still_there(written, tally.done) if believed else Intervals())
            self.tracked[disk] &= believed
            with closing(WorkTable(self._state.table(self._generation, disk), source.size)) as table:
                if disproof(source, clean(kept[-1], source.size), table.table, self._check) is not None:
                    return None
                keep_only(table, kept[-1])
        return kept

    def _drop_the_rest(self) -> None:
        tallies = acknowledged(self._state.journal(self._generation), len(self._sources))
        for disk, source, tally in zip(self._volumes, self._sources, tallies, strict=True):
            with closing(WorkTable(self._state.table(self._generation, disk), source.size)) as table:
                keep_only(table, tally.done)

    def _restart(self) -> None:
        self.fresh = True
        self._state.restart(self._generation)

    def _usable_base(self) -> int | None:
        if self._base is None:
            return None
        committed = self._state.committed()
        others = [] if self._at_rest else self._others()
        if committed is None or committed.generation != self._base:
            have = "none" if committed is None else str(committed.generation)
            self.notes.append(f"base generation {self._base} is not here (committed: {have}): full copy")
        elif any(another_volume(committed.volumes.get(disk), volume) for disk, volume in self._volumes.items()):
            self.notes.append(f"base generation {self._base} is on other volumes: full copy")
        elif others:
            self.notes.append(f"generation {others[-1]} was begun and never committed: full copy")
        else:
            return self._base
        return None

    def _others(self) -> list[int]:
        """Other generations of which the volumes may hold parts."""
        numbers = [number for number in self._state.touched() if number != self._generation]
        return [number for number in numbers if (self._state.begun(number) or {}).get("on_volumes", True)]
