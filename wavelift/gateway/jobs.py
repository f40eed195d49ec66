"""The gateway's jobs: read the volumes back, and prepare the guest on them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from wavelift.blocks.blockmap import generation_root
from wavelift.blocks.readback import ReadBack
from wavelift.gateway.readbacks import ReadBacks
from wavelift.gateway.volumes import Volumes
from wavelift.manifest.wishes import Wishes
from wavelift.service.errors import WaveliftError
from wavelift.service.job_context import JobContext
from wavelift.service.limits import unlimited

Name = Annotated[str, Field(min_length=1, max_length=256)]
END_SECONDS = 10.0


class VerifyDisk(BaseModel):
    model_config = ConfigDict(extra="forbid")

    disk: Name
    volume: Name
    size: int = Field(gt=0, multiple_of=512)


class VerifySpec(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["verify"]
    migration: Name
    generation: int = Field(ge=1)
    disks: list[VerifyDisk] = Field(min_length=1, max_length=64)


class PrepareDisk(BaseModel):
    model_config = ConfigDict(extra="forbid")

    disk: Name
    volume: Name


class PrepareSpec(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["prepare"]
    migration: Name
    generation: int = Field(ge=1)
    disks: list[PrepareDisk] = Field(min_length=1, max_length=64)
    wishes: Wishes = Wishes()


class PreparationFailed(WaveliftError):
    default_code = "prepare_failed"


def preparing(virtio_win: Path | None = None) -> list[str]:
    """The command that prepares a guest, without its disks."""
    command = [sys.executable, "-m", "wavelift.guest"]
    return command if virtio_win is None else [*command, "--virtio-win", str(virtio_win)]


class GatewayJobs:
    def __init__(self, volumes: Volumes, readbacks: ReadBacks, guest: list[str] | None = None) -> None:
        """`guest` is the command that prepares, without its paths."""
        self._volumes = volumes
        self._readbacks = readbacks
        self._guest = guest or preparing()

    def verify(self, context: JobContext[VerifySpec]) -> dict[str, Any]:
        context.step("waiting")
        with self._volumes.turns.reading([disk.volume for disk in context.spec.disks], context.check):
            return self._read_back(context, context.spec)

    def _read_back(self, context: JobContext[VerifySpec], spec: VerifySpec) -> dict[str, Any]:
        context.step("reading back")
        total = sum(disk.size for disk in spec.disks)
        before = 0
        roots: list[tuple[str, bytes]] = []
        for disk in spec.disks:
            volume = self._volumes.holding(disk.volume, disk.disk, disk.size)

            def check(before: int = before) -> None:
                context.check()
                context.progress(total=total, done=before + found.done, verified=before + found.done)

            with (
                self._readbacks.turn(disk.volume, context.check),
                ReadBack(volume.path, disk.size, check=check) as found,
            ):
                kept = self._readbacks.keep(disk.volume, disk.disk, spec.generation, found)
            roots.append((disk.disk, kept.root))
            before += disk.size
            context.progress(total=total, done=before, verified=before)
        return {
            "root": generation_root(roots).hex(),
            "disks": [
                {**disk.model_dump(), "root": root.hex()} for disk, (_, root) in zip(spec.disks, roots, strict=True)
            ],
        }

    def prepare(self, context: JobContext[PrepareSpec]) -> dict[str, Any]:
        names = [disk.volume for disk in context.spec.disks]
        context.step("waiting")
        with self._volumes.turns.reading(names, context.check):
            paths = [self._volumes.find(name).path for name in names]
            for name in names:
                self._volumes.turns.wrote_itself(name)
            context.step("starting")
            with _Guest(self._guest, paths, context) as guest:
                return guest.report()


class _Guest:
    """The preparing child: its own process group, so that a cancel also ends what it started."""

    def __init__(self, command: list[str], paths: list[Path], context: JobContext[PrepareSpec]) -> None:
        self._context = context
        self._child = subprocess.Popen(
            [*command, "--wishes", *map(str, paths)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        # It starts a machine, whose memory is more than a service needs.
        unlimited(self._child.pid)
        assert self._child.stdin is not None
        # One that ended already says why on its other pipes.
        with suppress(BrokenPipeError), self._child.stdin as pipe:
            pipe.write(context.spec.wishes.model_dump_json())
        self._last_words: list[str] = []
        self._threads = [
            threading.Thread(target=self._collect, daemon=True),
            threading.Thread(target=self._end_on_stop, daemon=True),
        ]
        self._over = threading.Event()
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> _Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._over.set()
        for thread in self._threads:
            thread.join()

    def report(self) -> dict[str, Any]:
        """The report, or the child's own error. Raises `PreparationFailed`, `Cancelled`."""
        found: dict[str, Any] | None = None
        assert self._child.stdout is not None
        for line in self._child.stdout:
            event = _parse(line)
            if event.get("event") == "progress":
                self._context.step(str(event.get("step", "")))
                self._context.progress(total=1000, done=int(1000 * float(event.get("fraction", 0.0))))
            elif event.get("event") == "report":
                found = {name: value for name, value in event.items() if name != "event"}
            elif event.get("event") == "error":
                raise PreparationFailed(
                    str(event.get("message", "")), str(event.get("remedy", "")), code=str(event.get("code"))
                )
        status = self._child.wait()
        self._context.check()
        if status != 0 or found is None:
            said = " ".join(self._last_words[-3:]) or "nothing"
            raise PreparationFailed(
                f"The preparation ended with status {status} and no report; it said: {said}.",
                "Look at the gateway's log.",
            )
        return found

    def _collect(self) -> None:
        assert self._child.stderr is not None
        for line in self._child.stderr:
            self._last_words = [*self._last_words[-9:], line.strip()]

    def _end_on_stop(self) -> None:
        while not self._over.wait(0.1):
            if self._context.stop.is_set():
                self._end()
                return

    def _end(self) -> None:
        if self._child.poll() is not None:
            return
        os.killpg(self._child.pid, signal.SIGTERM)
        try:
            self._child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()


def _parse(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
