"""The agent's REST API: its disks, its replicate jobs, and the commit that moves the base on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI
from pydantic import BaseModel

from wavelift.agent.checking import check
from wavelift.agent.metrics import figures
from wavelift.agent.pending import WantedDoubts, note_doubts
from wavelift.agent.repair import Repairer
from wavelift.agent.replicate import Replicator
from wavelift.agent.samples import SampleAnswer, WantedSample, sample_of
from wavelift.agent.specs import NAME, CheckSpec, RepairSpec, ReplicateSpec
from wavelift.agent.state import Committed, MigrationState
from wavelift.blocks.digest import SECTOR
from wavelift.blocks.errors import BlockError, MapError
from wavelift.blocks.limits import LimitAnswer, Limits, MigrationLimitAnswer, SetLimit
from wavelift.blocks.meter import WireMeter
from wavelift.service.errors import InvalidRequest, NotFound, explain
from wavelift.service.job_store import JobStore
from wavelift.service.jobs import JobError
from wavelift.service.rest import bearer, build_app, shared_secret
from wavelift.service.runner import JobKind, JobRunner
from wavelift.sources.base import Consistency, Source
from wavelift.sources.together import Described, Hosted, Sectored


class DiskAnswer(BaseModel):
    """A disk that is offered; with `error` in place of `size` when it cannot be used, as the others still can."""

    id: str
    kind: str
    sector_size: int = SECTOR
    size: int | None = None
    consistency: Consistency | None = None
    error: JobError | None = None


class CommittedDisk(BaseModel):
    """A disk whose block map is there; `root` in hex."""

    disk: str
    root: str


class CommitAnswer(BaseModel):
    """`generation` is the last one committed, which may be a later one than was asked for; `doubted_bytes` of its
    volumes are known to hold something else, until the next generation sends it."""

    migration: str
    generation: int
    disks: list[CommittedDisk]
    doubted_bytes: int


class Left(BaseModel):
    disk: str
    error: str


class ForgetAnswer(BaseModel):
    """`left`: what keeps track of changes and could not be taken off a disk's host."""

    migration: str
    forgotten_jobs: int
    left: list[Left]


def make_runner(
    state: Path, sources: Mapping[str, Source], limits: Limits, connections: int, wire: WireMeter
) -> JobRunner:
    replicator = Replicator(state, sources, limits, connections, wire)
    kinds: list[JobKind[Any]] = [
        JobKind("replicate", ReplicateSpec, replicator.run),
        JobKind("repair", RepairSpec, Repairer(state, replicator).run),
        JobKind("check", CheckSpec, check),
    ]
    return JobRunner(JobStore(state / "jobs.db"), kinds, moves=("read", "wire", "written", "verified"))


def make_app(
    state: Path,
    sources: Mapping[str, Source],
    limits: Limits,
    runner: JobRunner,
    secret: str,
    wire: WireMeter,
    scraper: str | None = None,
) -> FastAPI:
    guarded = shared_secret(secret)
    app = build_app("agent", runner, guarded, metrics=lambda: figures(state, wire, limits), scraper=scraper)
    guard = [Depends(bearer(guarded))]

    @app.get("/v1/disks", summary="The disks on offer", dependencies=guard, response_model_exclude_none=True)
    def disks() -> list[DiskAnswer]:
        return [_about(name, source) for name, source in sorted(sources.items())]

    @app.post(
        "/v1/migrations/{migration}/generations/{generation}/commit",
        summary="Make a verified generation the base of the next",
        dependencies=guard,
    )
    def commit(migration: str, generation: int) -> CommitAnswer:
        done = MigrationState(state, _name(migration)).commit(generation)
        return _committed(state, migration, done)

    @app.post(
        "/v1/migrations/{migration}/generations/{generation}/doubts",
        summary="Leave to the next generation what the target turned out not to hold",
        dependencies=guard,
    )
    def doubt(migration: str, generation: int, wanted: WantedDoubts) -> CommitAnswer:
        return _committed(state, migration, note_doubts(MigrationState(state, _name(migration)), generation, wanted))

    @app.post(
        "/v1/migrations/{migration}/generations/{generation}/sample",
        summary="Draw a sample of a generation, to be held against its volumes",
        dependencies=guard,
    )
    def sample(migration: str, generation: int, wanted: WantedSample) -> SampleAnswer:
        return sample_of(MigrationState(state, _name(migration)), generation, wanted)

    @app.get("/v1/migrations/{migration}", summary="The last committed generation", dependencies=guard)
    def committed(migration: str) -> CommitAnswer:
        known = MigrationState(state, _name(migration)).committed()
        if known is None:
            raise NotFound(
                f"No generation of {migration!r} was committed here.", "Replicate one, verify and commit it."
            )
        return _committed(state, migration, known)

    @app.delete("/v1/migrations/{migration}", summary="Forget a migration and its jobs", dependencies=guard)
    def forget(migration: str) -> ForgetAnswer:
        keys = [job.key for job in runner.all() if runner.spec(job.key).get("migration") == migration]
        disks = {disk["disk"] for key in keys for disk in runner.spec(key)["disks"]}
        runner.forget(keys)
        known = MigrationState(state, _name(migration))
        left = _forget(sources, migration, disks)
        known.forget()
        limits.forget(migration)
        return ForgetAnswer(migration=migration, forgotten_jobs=len(keys), left=left)

    @app.get("/v1/limits", summary="The limit of all that the agent sends", dependencies=guard)
    def limit() -> LimitAnswer:
        return limits.about_all()

    @app.put("/v1/limits", summary="Limit all that the agent sends", dependencies=guard)
    def set_limit(wanted: SetLimit) -> LimitAnswer:
        limits.set_all(wanted.bandwidth)
        return limits.about_all()

    @app.get("/v1/migrations/{migration}/limits", summary="The limit of a migration", dependencies=guard)
    def limit_of(migration: str) -> MigrationLimitAnswer:
        return limits.about(_name(migration))

    @app.put("/v1/migrations/{migration}/limits", summary="Limit a migration", dependencies=guard)
    def set_limit_of(migration: str, wanted: SetLimit) -> MigrationLimitAnswer:
        limits.set(_name(migration), wanted.bandwidth)
        return limits.about(migration)

    return app


def _committed(state: Path, migration: str, known: Committed) -> CommitAnswer:
    disks = []
    for disk in known.volumes:
        # What cannot be read is replicated in full by the next cycle: that is no reason to refuse this one.
        with suppress(MapError):
            found = MigrationState(state, migration).maps(disk).load(known.generation)
            if found is not None:
                disks.append(CommittedDisk(disk=disk, root=found.root.hex()))
    return CommitAnswer(
        migration=migration, generation=known.generation, disks=disks, doubted_bytes=known.doubted_bytes
    )


def _forget(sources: Mapping[str, Source], migration: str, disks: set[str]) -> list[Left]:
    """Take the trackers off the hosts; what stayed there, and why."""
    left: list[Left] = []
    for disk in sorted(disks):
        source = sources.get(disk)
        if isinstance(source, Hosted):
            try:
                source.forget(migration)
            except (BlockError, OSError) as error:
                left.append(Left(disk=disk, error=explain(error)[1]))
    return left


def _about(name: str, source: Source) -> DiskAnswer:
    try:
        size, consistency = _look(source)
        sector = source.sector_size() if isinstance(source, Sectored) else SECTOR
    except (BlockError, OSError) as error:
        code, message, remedy = explain(error)
        return DiskAnswer(id=name, kind=source.kind, error=JobError(code=code, message=message, remedy=remedy))
    return DiskAnswer(id=name, kind=source.kind, sector_size=sector, size=size, consistency=consistency)


def _look(source: Source) -> tuple[int, Consistency]:
    if isinstance(source, Described):
        return source.describe()
    opened = source.open()
    try:
        return opened.size, opened.consistency
    finally:
        opened.close()


def _name(migration: str) -> str:
    if not re.match(NAME, migration):
        raise InvalidRequest(f"{migration!r} is no name of a migration.", "Use letters, digits, '.', '_', '-'.")
    return migration
