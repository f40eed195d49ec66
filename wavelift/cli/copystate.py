"""The folder of `--state` and `--since`: which source and target it speaks of, and what the engine keeps in there."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from wavelift.agent.state import MigrationState
from wavelift.blocks.blockmap import write_durably
from wavelift.blocks.errors import BlockError

VERSION = 1
_FILE = "copy.json"
_LOCK = "lock"


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
        self._write(target_id, None)

    def ended(
        self, generation: int, disk: str, wrong: list[tuple[int, int]], target_id: str, modified: int | None
    ) -> None:
        """The target holds this generation, but for what is `wrong`, (start, end) in bytes: the next sends that.

        `modified` tells later whether something else wrote to it.
        """
        if wrong:
            self.engine.doubt(generation, {disk: wrong})
        else:
            self.engine.commit(generation)
        self._write(target_id, modified)

    def is_target(self, target_id: str) -> bool:
        """Whether it is the very file or device that the state has had to do with."""
        return _read(self._file).get("target_id") == target_id

    def touched_since(self, modified: int | None) -> bool:
        """Whether something wrote to the target after a copy had ended."""
        left = _read(self._file).get("modified")
        return left is not None and left != modified

    def next_generation(self) -> int:
        """One that was begun goes on. The time as a number sets copies apart that know nothing of each other: a gateway
        takes no pack of an older one."""
        touched = self.engine.touched()
        committed = self.engine.committed()
        before = 0 if committed is None else committed.generation
        return touched[-1] if touched else max(before + 1, int(time.time()))

    def _write(self, target_id: str, modified: int | None) -> None:
        about = {"version": VERSION, **asdict(self.subject), "target_id": target_id, "modified": modified}
        write_durably(self._file, json.dumps(about, indent=1).encode() + b"\n")


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
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateUnusable(f"Another copy is using the state {folder}.", "Wait until it has ended.") from None
        state = CopyState(folder, subject)
        if (folder / _FILE).exists():
            _require_same(folder, subject)
        if must_exist and state.engine.committed() is None:
            raise StateUnusable(
                f"The state {folder} holds no finished copy.", f"Finish it first: --state {folder} in place of --since."
            )
        yield state
    finally:
        os.close(lock)


@contextmanager
def passing(subject: Subject) -> Iterator[CopyState]:
    """A state that goes when the copy ends."""
    # Tables of a large disk take gigabytes; /tmp may be memory.
    folder = Path(tempfile.mkdtemp(prefix="wavelift-copy-", dir=os.environ.get("TMPDIR", "/var/tmp")))
    try:
        yield CopyState(folder, subject)
    finally:
        shutil.rmtree(folder)


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
