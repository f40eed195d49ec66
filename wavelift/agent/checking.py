"""The check job: a generation is read back from its archives, to the last byte of what was not checked before."""

from __future__ import annotations

from functools import partial
from itertools import takewhile
from typing import Any

from wavelift.agent.doubts import bounded, doubted
from wavelift.agent.specs import CheckSpec
from wavelift.archive.archive import Archive
from wavelift.archive.descriptor import ArchiveDescriptor
from wavelift.archive.opening import open_archive
from wavelift.archive.verify import Verdict, verify
from wavelift.blocks.blockmap import DiskMap, disk_root, generation_root, segments_of
from wavelift.service.errors import InvalidRequest
from wavelift.service.job_context import JobContext
from wavelift.stores.patience import Patience


def check(context: JobContext[CheckSpec]) -> dict[str, Any]:
    """What the archives of the disks hold of a generation, and what of it they have lost; an archive that cannot be
    asked is an error.

    Raises `InvalidRequest`, `ArchiveError`, `StoreError`, OSError.
    """
    spec = context.spec
    context.step("opening")
    patience = Patience(stop=context.stop)
    opened = [open_archive(partial(_descriptor, context, index), patience=patience) for index in range(len(spec.disks))]
    totals = [
        _to_read(archive, spec.generation, disk.base_root) for archive, disk in zip(opened, spec.disks, strict=True)
    ]
    context.step("checking")
    disks = []
    for index, (archive, disk) in enumerate(zip(opened, spec.disks, strict=True)):

        def progress(done: int, total: int, index: int = index) -> None:
            totals[index] = total
            done += sum(totals[:index])
            context.progress(total=sum(totals), done=done, verified=done)

        verdict = verify(archive, spec.generation, context.check, progress, proven=disk.base_root)
        disks.append(_about(disk.disk, archive, verdict))
    return {
        "generation": spec.generation,
        "root": generation_root((disk["disk"], bytes.fromhex(disk["root"])) for disk in disks).hex(),
        "disks": disks,
        "lost_bytes": sum(disk["lost_bytes"] for disk in disks),
    }


def _descriptor(context: JobContext[CheckSpec], index: int) -> ArchiveDescriptor:
    """As it is now: a resubmission of the job renews credentials."""
    return context.spec.disks[index].archive


def _to_read(archive: Archive, number: int, proven: str | None) -> int:
    """Bytes of packs, if those of the generation with that root are all there still."""
    newest, *before = archive.chain(number)
    return newest.pack_bytes + sum(each.pack_bytes for each in takewhile(lambda each: each.root != proven, before))


def _about(disk: str, archive: Archive, verdict: Verdict) -> dict[str, Any]:
    made = verdict.generation
    if made.disk != disk:
        raise InvalidRequest(f"{archive.name} holds disk {made.disk}, not {disk}.", "Name the archive of each disk.")
    # Near ones as one where there are very many: sending what is not lost harms nothing.
    lost = bounded(verdict.lost)
    return {
        "disk": disk,
        "root": _root(archive.map(made), lost).hex(),
        "read": list(verdict.read),
        "packs": verdict.packs,
        "checked_bytes": verdict.bytes,
        "lost_bytes": sum(end - start for start, end in lost),
        "lost": [{"offset": start, "length": end - start} for start, end in lost],
        "damaged": [flaw.key for flaw in verdict.flaws],
        "base_elsewhere": None if verdict.elsewhere is None else verdict.elsewhere[0],
    }


def _root(found: DiskMap, lost: list[tuple[int, int]]) -> bytes:
    """Of what is there: where something is lost, of no content that any disk has."""
    there = doubted(found, lost)
    assert there is not None
    return disk_root(found.size, b"".join(there.segment(number) for number in range(segments_of(found.size))))
