"""The gateway's control API: volumes, verify and prepare jobs, guarded by scoped tokens."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Response
from pydantic import BaseModel

from wavelift.blocks.blockmap import DiskMap, encode_index, segments_of
from wavelift.blocks.handshake import readable
from wavelift.blocks.limits import LimitAnswer, Limits, SetLimit
from wavelift.blocks.throttle import Throttle
from wavelift.gateway.data import DataServer
from wavelift.gateway.hands import AT_WORK, WAITING, Hands
from wavelift.gateway.hydrate_spec import HydrateSpec
from wavelift.gateway.hydrating import Hydrating
from wavelift.gateway.jobs import GatewayJobs, PrepareSpec, VerifySpec, preparing
from wavelift.gateway.metrics import figures
from wavelift.gateway.readbacks import ReadBacks
from wavelift.gateway.sampled import SampleSpec, read_sample
from wavelift.gateway.transfer import TransferSpec, transfer
from wavelift.gateway.volumes import Volumes
from wavelift.service.errors import ForbiddenRequest, NotFound
from wavelift.service.job_store import JobStore
from wavelift.service.rest import Health, bearer, build_app
from wavelift.service.runner import JobKind, JobRunner
from wavelift.service.tokens import Claims, verify

BINARY = "application/octet-stream"
BINARY_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"content": {BINARY: {"schema": {"type": "string", "format": "binary"}}}}
}


AT_DATA_PORT = {
    "servers": [
        {
            "url": "https://{host}:{data_port}",
            "description": "`data_port` is in the answer of GET /v1/health; the certificate is the same",
            "variables": {"host": {"default": "gateway"}, "data_port": {"default": "443"}},
        }
    ],
    "requestBody": {"required": True, "content": {BINARY: {"schema": {"type": "string", "format": "binary"}}}},
}


class TakenAnswer(BaseModel):
    """Migration and generation of the last pack that was taken, empty and 0 before the first. While `mark` is the
    same, no other content was written."""

    migration: str
    generation: int
    mark: str


class GatewayHealth(Health):
    """Packs are taken at `data_port` of the same host. `packs`: `versions` and `codecs` of them that are read here."""

    data_port: int
    packs_received: int
    packs: dict[str, list[int | str]]


class PackAnswer(BaseModel):
    """The pack is durable: `bytes` of the volume in `blocks`; it had `wire_bytes`, and took `busy_seconds` of work."""

    blocks: int
    bytes: int
    wire_bytes: int
    busy_seconds: float


class VolumeAnswer(BaseModel):
    """A volume, its size in bytes, and the device it is here."""

    id: str
    size: int
    path: str


def make_runner(
    state: Path, volumes: Volumes, readbacks: ReadBacks, throttle: Throttle, virtio_win: Path | None = None
) -> JobRunner:
    """`throttle` is what the packs that jobs fetch go through. `virtio_win`: the folder with drivers for Windows."""
    jobs = GatewayJobs(volumes, readbacks, preparing(virtio_win))
    hands = Hands()
    hydrating = Hydrating(volumes, readbacks, throttle, state / "hydrations", hands)
    kinds: list[JobKind[Any]] = [
        JobKind("verify", VerifySpec, hands.doing(jobs.verify)),
        JobKind("sample", SampleSpec, hands.doing(partial(read_sample, volumes))),
        JobKind("prepare", PrepareSpec, hands.doing(jobs.prepare)),
        JobKind("transfer", TransferSpec, hands.doing(partial(transfer, volumes))),
        JobKind("hydrate", HydrateSpec, hydrating.run),
    ]
    store, moves = JobStore(state / "jobs.db"), ("wire", "written", "verified")
    return JobRunner(store, kinds, workers=AT_WORK + WAITING, moves=moves)


def admit(claims: Claims, key: str, spec: Mapping[str, Any] | None) -> None:
    """A control token may run jobs of its own migration, on the volumes it names if it names any."""
    claims.require_migration(key.split("/", 1)[0])
    if spec is None:
        return
    claims.require_migration(str(spec.get("migration")))
    disks = spec.get("disks")
    for disk in disks if isinstance(disks, list) else []:
        if isinstance(disk, dict):
            for volume in {str(disk.get("volume")), str(disk.get("onto", disk.get("volume")))}:
                claims.require_volume(volume)


def make_app(
    volumes: Volumes,
    readbacks: ReadBacks,
    limits: Limits,
    runner: JobRunner,
    data: DataServer,
    key: str,
    scraper: str | None = None,
) -> FastAPI:
    def control(token: str) -> Claims:
        return verify(key, token, scope="control")

    def health() -> dict[str, Any]:
        return {"data_port": data.port, "packs_received": data.packs_received, "packs": readable()}

    app = build_app("gateway", runner, control, admit, health, GatewayHealth, lambda: figures(data, limits), scraper)

    @app.get("/v1/volumes", summary="The volumes attached", dependencies=[Depends(bearer(control))])
    def attached() -> list[VolumeAnswer]:
        return [VolumeAnswer(id=volume.id, size=volume.size, path=str(volume.path)) for volume in volumes.all()]

    @app.get("/v1/limits", summary="The limit of all that the gateway takes", dependencies=[Depends(bearer(control))])
    def limit() -> LimitAnswer:
        return limits.about_all()

    @app.put("/v1/limits", summary="Limit all that the gateway takes", dependencies=[Depends(bearer(control))])
    def set_limit(wanted: SetLimit) -> LimitAnswer:
        limits.set_all(wanted.bandwidth)
        return limits.about_all()

    def kept(volume: str, generation: int, claims: Claims) -> DiskMap:
        # With the write token: who may write the blocks may know what became of them.
        claims.require_volume(volume)
        volumes.find(volume)
        return readbacks.load(volume, generation)

    sender = Depends(bearer(lambda token: verify(key, token, scope="write")))

    @app.get(
        "/v1/volumes/{volume}/readbacks/{generation}",
        summary="Block map of what was read back",
        response_class=Response,
        responses=BINARY_ANSWER,
    )
    def index(volume: str, generation: int, claims: Claims = sender) -> Response:
        """The index of the block map of what was last read back; docs/format.md."""
        found = kept(volume, generation, claims)
        return Response(encode_index(found.disk, found.size, found.segments), media_type=BINARY)

    @app.get(
        "/v1/volumes/{volume}/readbacks/{generation}/segments/{number}",
        summary="Digests of a segment of it",
        response_class=Response,
        responses=BINARY_ANSWER,
    )
    def segment(volume: str, generation: int, number: int, claims: Claims = sender) -> Response:
        """The digest table of a segment of it."""
        found = kept(volume, generation, claims)
        if not 0 <= number < segments_of(found.size):
            raise NotFound(f"Disk {found.disk} has no segment {number}.", "Count from 0.")
        return Response(found.table(number), media_type=BINARY)

    @app.get("/v1/volumes/{volume}/taken", summary="Whose packs the volume took last")
    def taken(volume: str, claims: Claims = sender) -> TakenAnswer:
        claims.require_volume(volume)
        volumes.find(volume)
        migration, generation, mark = volumes.turns.taken(volume)
        return TakenAnswer(migration=migration, generation=generation, mark=mark)

    @app.put(
        "/v1/volumes/{volume}/generations/{generation}/packs/{sequence}",
        summary="Take a pack: at the data port; refused at any other",
        responses={200: {"model": PackAnswer}},
        openapi_extra=AT_DATA_PORT,
    )
    def elsewhere(volume: str, generation: int, sequence: int) -> None:
        """With a write token of the volume. The body is one pack as in docs/format.md, with its Content-Length.

        The same pack again does no harm. 503 `volume_busy`: later; 409 with `missing`: those ranges are to be sent as
        data, as what they were to be copied from is not there.
        """
        raise ForbiddenRequest(
            f"Packs are not taken here but at port {data.port}.", "Ask GET /v1/health for `data_port`."
        )

    return app
