"""The check job: a generation is read back from its archives, to the last byte."""

from __future__ import annotations

from functools import partial
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
    totals = [sum(each.pack_bytes for each in archive.chain(spec.generation)) for archive in opened]
    context.step("checking")
    disks = []
    for index, archive in enumerate(opened):
        before = sum(totals[:index])

        def progress(done: int, _total: int, before: int = before) -> None:
            context.progress(total=sum(totals), done=before + done, verified=before + done)

        verdict = verify(archive, spec.generation, context.check, progress)
        disks.append(_about(spec.disks[index].disk, archive, verdict))
    return {
        "generation": spec.generation,
        "root": generation_root((disk["disk"], bytes.fromhex(disk["root"])) for disk in disks).hex(),
        "disks": disks,
        "lost_bytes": sum(disk["lost_bytes"] for disk in disks),
    }


def _descriptor(context: JobContext[CheckSpec], index: int) -> ArchiveDescriptor:
    """As it is now: a resubmission of the job renews credentials."""
    return context.spec.disks[index].archive


def _about(disk: str, archive: Archive, verdict: Verdict) -> dict[str, Any]:
    made = verdict.generation
    if made.disk != disk:
        raise InvalidRequest(f"{archive.name} holds disk {made.disk}, not {disk}.", "Name the archive of each disk.")
    # Near ones as one where there are very many: sending what is not lost harms nothing.
    lost = bounded(verdict.lost)
    return {
        "disk": disk,
        "root": _root(archive.map(made), lost).hex(),
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
