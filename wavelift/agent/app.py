"""The agent's REST API: its disks, its replicate jobs, and the commit that moves the base on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI

from wavelift.agent.repair import Repairer, RepairSpec
from wavelift.agent.replicate import NAME, ReplicateSpec, Replicator
from wavelift.agent.state import MigrationState
from wavelift.blocks.errors import BlockError
from wavelift.blocks.limits import LimitAnswer, Limits, MigrationLimitAnswer, SetLimit
from wavelift.service.errors import InvalidRequest, NotFound, explain
from wavelift.service.jobs import JobStore
from wavelift.service.rest import bearer, build_app, shared_secret
from wavelift.service.runner import JobKind, JobRunner
from wavelift.sources.base import Consistency, Source
from wavelift.sources.together import Described, Hosted

SECTOR_SIZE = 512


def make_runner(state: Path, sources: Mapping[str, Source], limits: Limits, connections: int) -> JobRunner:
    replicator = Replicator(state, sources, limits, connections)
    kinds: list[JobKind[Any]] = [
        JobKind("replicate", ReplicateSpec, replicator.run),
        JobKind("repair", RepairSpec, Repairer(state, replicator).run),
    ]
    return JobRunner(JobStore(state / "jobs.db"), kinds)


def make_app(state: Path, sources: Mapping[str, Source], limits: Limits, runner: JobRunner, secret: str) -> FastAPI:
    check = shared_secret(secret)
    app = build_app("agent", runner, check)
    guard = [Depends(bearer(check))]

    @app.get("/v1/disks", dependencies=guard)
    def disks() -> list[dict[str, Any]]:
        return [_about(name, source) for name, source in sorted(sources.items())]

    @app.post("/v1/migrations/{migration}/generations/{generation}/commit", dependencies=guard)
    def commit(migration: str, generation: int) -> dict[str, Any]:
        done = MigrationState(state, _name(migration)).commit(generation)
        return {"migration": migration, "generation": done.generation}

    @app.get("/v1/migrations/{migration}", dependencies=guard)
    def committed(migration: str) -> dict[str, Any]:
        known = MigrationState(state, _name(migration)).committed()
        if known is None:
            raise NotFound(
                f"No generation of {migration!r} was committed here.", "Replicate one, verify and commit it."
            )
        return {"migration": migration, "generation": known.generation}

    @app.delete("/v1/migrations/{migration}", dependencies=guard)
    def forget(migration: str) -> dict[str, Any]:
        keys = [job.key for job in runner.all() if runner.spec(job.key).get("migration") == migration]
        runner.forget(keys)
        known = MigrationState(state, _name(migration))
        committed = known.committed()
        left: list[dict[str, str]] = [] if committed is None else _forget(sources, list(committed.volumes))
        known.forget()
        limits.forget(migration)
        return {"migration": migration, "forgotten_jobs": len(keys), "left": left}

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


def _forget(sources: Mapping[str, Source], disks: list[str]) -> list[dict[str, str]]:
    """Take the trackers off the hosts; what stayed there, and why."""
    left: list[dict[str, str]] = []
    for disk in disks:
        source = sources.get(disk)
        if isinstance(source, Hosted):
            try:
                source.forget()
            except (BlockError, OSError) as error:
                left.append({"disk": disk, "error": explain(error)[1]})
    return left


def _about(name: str, source: Source) -> dict[str, Any]:
    """One disk of the list; with `error` in place of `size` when it cannot be used, as the others still can."""
    about: dict[str, Any] = {"id": name, "sector_size": SECTOR_SIZE, "kind": source.kind}
    try:
        size, consistency = _look(source)
    except (BlockError, OSError) as error:
        code, message, remedy = explain(error)
        return {**about, "error": {"code": code, "message": message, "remedy": remedy}}
    return {**about, "size": size, "consistency": consistency}


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
