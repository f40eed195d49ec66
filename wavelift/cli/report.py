"""What a command tells while it works: one line redrawn on a terminal, plain lines elsewhere, JSON for programs."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Protocol

from wavelift.cli.units import duration, size
from wavelift.service.errors import Explained, explain

SAME, DIFFERENT, FAILED = 0, 1, 2
RATE_WINDOW_SECONDS = 10.0


@dataclass(frozen=True)
class Progress:
    """Sizes in bytes, of the disk (`total`, and `done`: `read` or `skipped`; `written` at the target) and of packs
    (`wire`); `eta_seconds` None while unknown."""

    step: str
    total_bytes: int
    done_bytes: int
    wire_bytes: int
    bytes_per_second: float
    eta_seconds: float | None
    read_bytes: int = 0
    skipped_bytes: int = 0
    written_bytes: int = 0


class Display(Protocol):
    every_seconds: float

    def progress(self, progress: Progress) -> None: ...

    def note(self, text: str) -> None: ...

    def result(self, fields: Mapping[str, Any], text: str) -> None:
        """The end of it, well or as a difference found: `fields` for programs, `text` for people."""

    def error(self, code: str, message: str, remedy: str) -> None: ...


class TerminalDisplay:
    """Progress on stderr, in one line that the next one overwrites."""

    every_seconds = 0.2

    def __init__(self) -> None:
        self._drawn = False

    def progress(self, progress: Progress) -> None:
        width = os.get_terminal_size(sys.stderr.fileno()).columns
        sys.stderr.write(f"\r{line_of(progress)[: width - 1]}\x1b[K")
        sys.stderr.flush()
        self._drawn = True

    def note(self, text: str) -> None:
        self._clear()
        print(f"note: {text}", file=sys.stderr)

    def result(self, fields: Mapping[str, Any], text: str) -> None:
        self._clear()
        print(text, flush=True)

    def error(self, code: str, message: str, remedy: str) -> None:
        self._clear()
        print(f"error: {message}\n{remedy}".rstrip(), file=sys.stderr)

    def _clear(self) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            self._drawn = False


class PlainDisplay:
    """For logs and pipes: a line every few seconds on stderr, the result on stdout."""

    every_seconds = 5.0

    def progress(self, progress: Progress) -> None:
        print(line_of(progress), file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        print(f"note: {text}\n", end="", file=sys.stderr, flush=True)

    def result(self, fields: Mapping[str, Any], text: str) -> None:
        print(text, flush=True)

    def error(self, code: str, message: str, remedy: str) -> None:
        print(f"error: {message}\n{remedy}".rstrip(), file=sys.stderr)


class JsonDisplay:
    """All on stdout, an object a line; the last one has the event `result` or `error`."""

    every_seconds = 1.0

    def progress(self, progress: Progress) -> None:
        self._say("progress", asdict(progress))

    def note(self, text: str) -> None:
        self._say("note", {"message": text})

    def result(self, fields: Mapping[str, Any], text: str) -> None:
        self._say("result", fields)

    def error(self, code: str, message: str, remedy: str) -> None:
        self._say("error", {"code": code, "message": message, "remedy": remedy})

    def _say(self, event: str, fields: Mapping[str, Any]) -> None:
        # In one piece: several threads may have something to say.
        print(json.dumps({"event": event, **fields}) + "\n", end="", flush=True)


class Interrupted(Exception):
    """A signal asked for the end; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


class Watch:
    """Looks on at a work of several steps, and may end it."""

    def __init__(self, display: Display) -> None:
        self.display = display
        self.stop = threading.Event()
        self.signal = 0
        self.read_bytes = 0
        self._step = ""
        self._shown = time.monotonic()
        self._samples: deque[tuple[float, int]] = deque()

    def interrupt(self, number: int) -> None:
        self.signal = number
        self.stop.set()

    def step(self, name: str) -> None:
        self._step = name
        self._samples.clear()

    def check(self) -> None:
        """Raises `Interrupted`; may be called from any thread."""
        if self.stop.is_set():
            raise Interrupted(self.signal)

    def progress(
        self, *, total: int, done: int, wire: int = 0, read: int = 0, skipped: int = 0, written: int = 0
    ) -> None:
        """In bytes. The rate is that of the last ten seconds, so a stall shows."""
        self.read_bytes = max(self.read_bytes, read)
        now = time.monotonic()
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[0][0] > RATE_WINDOW_SECONDS:
            self._samples.popleft()
        if now - self._shown < self.display.every_seconds:
            return
        self._shown = now
        since, before = self._samples[0]
        rate = max(0.0, (done - before) / (now - since)) if now - since > 0.05 else 0.0
        eta = (total - done) / rate if rate > 0 else None
        self.display.progress(Progress(self._step, total, done, wire, rate, eta, read, skipped, written))


def line_of(progress: Progress) -> str:
    share = progress.done_bytes / progress.total_bytes if progress.total_bytes else 1.0
    wire = f", {size(progress.wire_bytes)} sent" if progress.wire_bytes else ""
    eta = "" if progress.eta_seconds is None else f", {duration(progress.eta_seconds)} left"
    return (
        f"{progress.step}: {share:4.0%}, {size(progress.done_bytes)} of {size(progress.total_bytes)}{wire}, "
        f"{size(progress.bytes_per_second)}/s{eta}"
    )


def run_reporting(
    as_json: bool,
    work: Callable[[Watch], int],
    when_stopped: Callable[[], str],
    remedies: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """The exit status of `work`, 2 after an error, 128 + the signal's number after one.

    `when_stopped` says what to do next; `remedies`, by an error's code, what to do here where the error itself speaks
    of a service's jobs. The first signal ends the work in order, a second one at once.
    """
    display: Display
    if as_json:
        display = JsonDisplay()
    elif sys.stderr.isatty():
        display = TerminalDisplay()
    else:
        display = PlainDisplay()
    watch = Watch(display)

    def ended(error: Interrupted) -> int:
        display.error("interrupted", f"Stopped by {error}.", when_stopped())
        return 128 + error.number

    try:
        with _signals(watch):
            return work(watch)
    except Interrupted as error:
        return ended(error)
    except BrokenPipeError:
        # Whoever read the output has gone, and with it the place to say so.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print("error: nobody reads the output any more", file=sys.stderr)
        return FAILED
    except Exception as error:  # noqa: BLE001  what was not foreseen is reported like the rest, with its trace
        if watch.stop.is_set():
            # A wait that the signal ended fails with an error of its own.
            return ended(Interrupted(watch.signal))
        if not isinstance(error, Explained | OSError):
            traceback.print_exc()
        code, message, remedy = explain(error)
        display.error(code, message, remedies.get(code, remedy))
        return FAILED


@contextmanager
def _signals(watch: Watch) -> Iterator[None]:
    wanted = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in wanted}

    def end(number: int, _frame: object) -> None:
        for each in wanted:
            signal.signal(each, signal.SIG_DFL)
        watch.interrupt(number)

    for number in wanted:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
