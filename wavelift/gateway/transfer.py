"""One volume's content onto another, read back and compared: how the system disk of a donor comes to hold a guest."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from wavelift.blocks.blockmap import disk_root, segment_digest, segments_of, table_size
from wavelift.blocks.digest import is_zero
from wavelift.blocks.errors import VolumeTooSmall
from wavelift.blocks.readback import STEP, ReadBack, Uncached
from wavelift.blocks.volume import VolumeWriter
from wavelift.gateway.volumes import Volumes
from wavelift.service.errors import WaveliftError
from wavelift.service.job_context import JobContext

Name = Annotated[str, Field(min_length=1, max_length=256)]


class TransferDisk(BaseModel):
    """From `volume`, all of it, onto the beginning of `onto`; what that has beyond becomes zeroes."""

    model_config = ConfigDict(extra="forbid")

    disk: Name
    volume: Name
    onto: Name


class TransferSpec(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["transfer"]
    migration: Name
    generation: int = Field(ge=1)
    disks: list[TransferDisk] = Field(min_length=1, max_length=1)


class TransferDiffers(WaveliftError):
    default_code = "transfer_differs"


def transfer(volumes: Volumes, context: JobContext[TransferSpec]) -> dict[str, Any]:
    """Raises `VolumeNotAttached`, `VolumeTooSmall`, `TransferDiffers`, OSError."""
    (disk,) = context.spec.disks
    context.step("waiting")
    with volumes.turns.reading([disk.volume, disk.onto], context.check):
        source, target = volumes.find(disk.volume), volumes.find(disk.onto)
        if target.size < source.size:
            raise VolumeTooSmall(disk.disk, source.size, disk.onto, target.size)
        volumes.turns.wrote_itself(disk.onto)
        context.step("writing")
        with volumes.writing(disk.onto) as writer, Uncached(source.path) as content:
            for done in _copy(content, writer, target.size, context.check):
                context.progress(total=target.size, done=done, written=done)
        context.step("reading back")
        with ExitStack() as stack:
            wanted = stack.enter_context(ReadBack(source.path, source.size, check=context.check))
            found = stack.enter_context(ReadBack(target.path, target.size, check=context.check))
            segments = _compare(wanted, found, disk.onto)
    return {
        "disk": disk.disk,
        "volume": disk.onto,
        "size": target.size,
        "root": disk_root(target.size, segments).hex(),
    }


def _copy(content: Uncached, writer: VolumeWriter, size: int, check: Callable[[], None]) -> Iterator[int]:
    """How far it is, in bytes, now and then. Zeroes are zeroed, not written."""
    buffer = mmap.mmap(-1, STEP)
    at = 0
    while at < size:
        check()
        data = content.next_data(at, content.size) if at < content.size else content.size
        if data >= content.size:
            writer.zero(at, size - at)
            at = size
        elif data > at:
            writer.zero(at, data - at)
            at = data
        else:
            view = content.read(buffer, at, min(STEP, content.size - at))
            if is_zero(view):
                writer.zero(at, len(view))
            else:
                writer.write(at, view)
            at += len(view)
        yield at


def _compare(wanted: ReadBack, found: ReadBack, volume: str) -> bytes:
    """The segment digests of what was found. Raises `TransferDiffers`."""
    segments = bytearray()
    for number in range(segments_of(found.size)):
        expected = wanted.table(number) if number < segments_of(wanted.size) else b""
        table = found.table(number)
        if table != expected.ljust(table_size(found.size, number), b"\0"):
            raise TransferDiffers(
                f"Volume {volume} does not hold in segment {number} what was written to it.",
                "Look for I/O errors in the gateway's kernel log; the task may be retried.",
            )
        segments += segment_digest(table)
    return bytes(segments)
