"""The folder of `--state` and `--since`: which source and target it speaks of, and what the engine keeps in there."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from wavelift.agent.doubts import bounded
from wavelift.agent.journal import acknowledged
from wavelift.agent.state import MigrationState
from wavelift.blocks.attempts import attempt_of
from wavelift.blocks.errors import BlockError
from wavelift.blocks.files import write_durably
from wavelift.cli.footing import Attempt, Ranges
from wavelift.holding import InUse, held

VERSION = 1
# Of a target, what changes when it is written; None where nothing tells.
Modified = int | str | None
_FILE = "copy.json"
_LOCK = "lock"
_PASSING = "wavelift-copy-"


class StateUnusable(BlockError):
    """A state folder that is missing, of another copy, in use, or not one of ours."""

    default_code = "state_unusable"


@dataclass(frozen=True)
class Subject:
    """What a state speaks of: texts that name source and target, and the migration its packs say they are of."""

    source: str
    target: str
    migration: str


class CopyState:
    def __init__(self, folder: Path, subject: Subject) -> None:
        self.folder = folder
        self.subject = subject
        self._file = folder / _FILE
        self.engine = MigrationState(folder, subject.migration)

    def begin(self, target_id: str) -> None:
        """From here on the target is not as the last copy left it."""
        self._write(target_id, None, self._left())

    def stopped(self, target_id: str, modified: int | None) -> None:
        """The copy ended before its end, and nothing of it is written any more."""
        self._write(target_id, modified, self._left())

    def ended(
        self, generation: int, disk: str, wrong: list[tuple[int, int]], target_id: str, modified: Modified
    ) -> None:
        """The target holds this generation, but for what is `wrong`, (start, end) in bytes: the next sends that.

        `modified` tells later whether something else wrote to it.
        """
        if wrong:
            self.engine.doubt(generation, {disk: wrong})
        else:
            self.engine.commit(generation)
        self._write(target_id, modified, None)

    def is_target(self, target_id: str) -> bool:
        """Whether it is the very file or device that the state has had to do with."""
        return _read(self._file).get("target_id") == target_id

    def touched_since(self, modified: Modified) -> bool:
        """Whether something wrote to the target after a copy had ended."""
        left = self._left()
        return left is not None and left != modified

    def attempt(self, disk: str, size: int) -> Attempt | None:
        """The copy that was cut short last. Raises `MapError`."""
        touched = self.engine.touched()
        return self.attempt_at(touched[-1], disk, size) if touched else None

    def attempt_at(self, generation: int, disk: str, size: int) -> Attempt:
        """Raises `MapError`."""
        begun = self.engine.begun(generation) or {}
        base, about = begun.get("base"), _read(self._file)
        (tally,) = acknowledged(self.engine.journal(generation), 1)
        return Attempt(
            generation,
            attempt_of(begun.get("first", 0)),
            tally.done,
            self.engine.table(generation, disk),
            None if base is None else self.engine.maps(disk).load(base),
            size,
            _modified(about.get("modified")),
            _modified(about.get("before")),
        )

    def doubt(self, disk: str, ranges: Ranges) -> None:
        """Where the target is not the last finished copy any more."""
        committed = self.engine.committed()
        if ranges and committed is not None:
            self.engine.doubt(committed.generation, {disk: bounded(ranges)})

    def next_generation(self, newest: int) -> int:
        """A new one, above the target's `newest`. The time as a number sets copies apart that know nothing of each
        other: a gateway takes no pack of an older one."""
        committed = self.engine.committed()
        before = 0 if committed is None else committed.generation
        return max(int(time.time()), 1 + max(before, newest, *self.engine.touched(), 0))

    def _left(self) -> Modified:
        """The target's, by the last copy that told; one that had not begun to write changes nothing."""
        about = _read(self._file)
        left = _modified(about.get("modified"))
        return _modified(about.get("before")) if left is None else left

    def _write(self, target_id: str, modified: Modified, before: Modified) -> None:
        left = {"target_id": target_id, "modified": modified, "before": before}
        about = {"version": VERSION, **asdict(self.subject), **left}
        write_durably(self._file, json.dumps(about, indent=1).encode() + b"\n")


def _modified(value: object) -> Modified:
    return value if isinstance(value, int | str) else None


@contextmanager
def kept(folder: Path, subject: Subject, must_exist: bool) -> Iterator[CopyState]:
    """The state in a folder, for this process alone. Raises `StateUnusable`, OSError."""
    if not folder.exists():
        if must_exist:
            raise StateUnusable(f"There is no state {folder}.", f"Begin with a full copy: --state {folder}.")
        folder.mkdir(parents=True, mode=0o700)
    if not folder.is_dir():
        raise StateUnusable(f"{folder} is no folder.", "Name the folder of a copy's state.")
    if not (folder / _FILE).exists() and any(found.name != _LOCK for found in folder.iterdir()):
        raise StateUnusable(f"{folder} is not empty and holds no state of a copy.", "Name another folder.")
    try:
        with held(folder / _LOCK):
            state = CopyState(folder, subject)
            if (folder / _FILE).exists():
                _require_same(folder, subject)
            if must_exist and state.engine.committed() is None:
                raise StateUnusable(
                    f"The state {folder} holds no finished copy.",
                    f"Finish it first: --state {folder} in place of --since.",
                )
            yield state
    except InUse as error:
        raise StateUnusable(
            f"Another copy is using the state {folder}: {error.who}.", "Wait until it has ended."
        ) from None


@contextmanager
def passing(subject: Subject) -> Iterator[CopyState]:
    """A state that goes when the copy ends; one that was killed leaves it for the next copy to take away."""
    # Tables of a large disk take gigabytes; /tmp may be memory.
    place = Path(os.environ.get("TMPDIR", "/var/tmp"))
    _sweep(place)
    folder = Path(tempfile.mkdtemp(prefix=_PASSING, dir=place))
    try:
        with held(folder / f"{_LOCK}.new"):
            # Never there without being held: what is not held is nobody's.
            (folder / f"{_LOCK}.new").rename(folder / _LOCK)
            yield CopyState(folder, subject)
    finally:
        shutil.rmtree(folder)


def _sweep(place: Path) -> None:
    for lock in place.glob(f"{_PASSING}*/{_LOCK}"):
        folder = lock.parent
        if folder.is_symlink() or lock.is_symlink() or lock.stat().st_uid != os.geteuid():
            continue
        try:
            with held(lock):
                shutil.rmtree(folder)
        except (InUse, FileNotFoundError):
            # In use, or taken away by another copy that begins just now.
            continue


def _require_same(folder: Path, subject: Subject) -> None:
    about = _read(folder / _FILE)
    if about.get("version") != VERSION:
        raise StateUnusable(f"The state {folder} is of another version of Wavelift.", "Copy in full, to another state.")
    for name, wanted in asdict(subject).items():
        if about.get(name) != wanted:
            raise StateUnusable(
                f"The state {folder} is of another {name}: {about.get(name)}, not {wanted}.",
                "Name the state of this copy, or begin one in another folder.",
            )


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        raise StateUnusable(f"{path} is damaged.", "Copy in full, with a new state.") from None
    return found if isinstance(found, dict) else {}
