"""For one at a time: an object in the archive that says who is at work, and for how long that holds unless it is said
again. Kept by whoever reads what they have put before they go on: of two that come at once none goes on."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from wavelift.archive.errors import ArchiveError
from wavelift.archive.layout import LOCKS
from wavelift.stores.base import Entry, NotThere, Store, StoreError, Unavailable

SECONDS = 300
_PAUSE_SECONDS = 2.0
_MAX_BYTES = 4096


class Busy(ArchiveError):
    """Somebody else is at work in the archive; `who` says where they run."""

    default_code = "archive_busy"

    def __init__(self, place: str, what: str, who: str) -> None:
        self.place, self.what, self.who = place, what, who
        super().__init__(
            f"Another {what} is under way in {place}: {who}.",
            f"Wait until it has ended; one that was killed elsewhere counts for {SECONDS} seconds.",
        )


class LeaseLost(ArchiveError):
    """The store could not be told in time that this goes on: others may have begun."""

    default_code = "lease_lost"


@dataclass(frozen=True)
class _Holder:
    """A process: `process` is told apart by when it started, within one boot and one namespace of ids (`within`)."""

    who: str
    within: str
    process: str
    seconds: int

    @property
    def dead(self) -> bool:
        """Whether this machine knows that it has ended."""
        return self.within == _within() and self.process != _process(int(self.process.partition("-")[0]))


_HOLDER = TypeAdapter(_Holder)


class Lease:
    """What is held, and goes on to be."""

    def __init__(self, store: Store, what: str) -> None:
        self._store = store
        self._key = f"{LOCKS}{what}-{secrets.token_hex(8)}"
        me = f"process {os.getpid()} on {socket.gethostname()}"
        self._holder = _Holder(me, _within(), _process(os.getpid()), SECONDS)
        self._said = 0.0
        self._ended = threading.Event()

    def require(self) -> None:
        """Raises `LeaseLost`."""
        if time.monotonic() - self._said > SECONDS:
            raise LeaseLost(f"{self._store.name} was not told for {SECONDS} seconds that this goes on.", "Begin anew.")

    @property
    def now(self) -> float:
        """When this was said last, by the store's clock, in seconds since the epoch. Raises `Unavailable` while the
        store does not list it."""
        return self._now(self._store.list(LOCKS))

    def others(self, kinds: Sequence[str]) -> Iterator[tuple[str, str]]:
        """(kind, who) of those at work, but for this one."""
        found = list(self._store.list(LOCKS)) if kinds else []
        now = self._now(found) if kinds else 0.0
        for entry in found:
            kind = entry.key.removeprefix(LOCKS).partition("-")[0]
            if kind in kinds and entry.key != self._key:
                holder = self._read(entry.key)
                if holder is not None and not holder.dead and now - entry.put_at < holder.seconds:
                    yield kind, holder.who

    def _now(self, found: Iterable[Entry]) -> float:
        for entry in found:
            if entry.key == self._key:
                return entry.put_at
        raise Unavailable(f"{self._store.name} does not list {self._key}, which it took.", "Try again later.")

    def say(self) -> None:
        at = time.monotonic()
        self._store.put(self._key, json.dumps(asdict(self._holder)).encode())
        self._said = at

    def goes_on(self) -> None:
        """Say it again and again until the end, in a thread of its own. What the store does not take is tried again;
        that it was not told in time shows in `require`."""
        while not self._ended.wait(SECONDS / 5):
            try:
                self.say()
            except StoreError:
                continue

    def end(self) -> None:
        self._ended.set()
        try:
            self._store.delete([self._key])
        except StoreError:
            # A right that is lacking, a disk that is elsewhere: what is still there is nobody's.
            self._holder = replace(self._holder, seconds=0)
            self.say()

    def _read(self, key: str) -> _Holder | None:
        """None for one that was let go of meanwhile. One that cannot be read counts for as long as any."""
        try:
            return _HOLDER.validate_json(self._store.get(key, 0, _MAX_BYTES))
        except NotThere:
            return None
        except ValidationError:
            return _Holder("unknown", "", "", SECONDS)


@contextmanager
def held(
    store: Store,
    what: str,
    *,
    against: Sequence[str] = (),
    waits_for: Sequence[str] = (),
    wait_seconds: float = 0.0,
    stop: threading.Event | None = None,
) -> Iterator[Lease]:
    """While nobody of the kinds `against` is at work, and once those of `waits_for` have ended, for which nobody waits
    once `stop` is set. Raises `Busy`, `StoreError`."""
    stop = stop or threading.Event()
    lease = Lease(store, what)
    lease.say()
    teller = threading.Thread(target=lease.goes_on, name=f"lease of {what}", daemon=True)
    teller.start()
    try:
        for kind, who in lease.others(against):
            raise Busy(store.name, kind, who)
        deadline = time.monotonic() + wait_seconds
        while other := next(lease.others(waits_for), None):
            if time.monotonic() > deadline or stop.wait(_PAUSE_SECONDS):
                raise Busy(store.name, *other)
        yield lease
    finally:
        lease.end()
        teller.join()


def _within() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def _process(number: int) -> str:
    """Its id and when it started; another one that got the same id started later."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return f"{number}-gone"
    return f"{number}-{fields[19]}"
