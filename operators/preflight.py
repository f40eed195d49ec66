"""Everything that can be known beforehand, reported all at once, before anything is created."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from operators.hooks import find_connection, shipped_of
from operators.run import MigrationRun, offered_disks
from operators.step import Event, Outcome, StepFailed, StepOperator
from storage_backends.errors import BackendError
from wavelift.manifest.plan import GIB, smallest_gib, volume_gib
from wavelift.service.errors import WaveliftError

if TYPE_CHECKING:
    from airflow.sdk import Context


class PreflightFailed(StepFailed):
    """One or more findings that would stop the migration; the message lists them all, each with its remedy."""

    default_code = "invalid"


class PreflightOperator(StepOperator):
    """Agent, disks, volumes, credentials, zone, network, instance types and gateway image."""

    def advance(self, run: MigrationRun, context: Context, event: Event) -> Outcome:
        sizes, findings = self._source(run)
        if run.migration.route.lands:
            findings += self._cloud(run, sizes)
        findings += self._archives(run)
        if findings:
            listed = "\n".join(f"{number}. {finding}" for number, finding in enumerate(findings, 1))
            raise PreflightFailed(
                f"preflight of {run.manifest.wave}/{run.migration.name} found {len(findings)} problem(s):\n{listed}\n",
                "mend what is listed and trigger the migration again; nothing was created.",
            )
        target = run.migration.target
        return {
            "disks": sizes,
            "volumes_gib": {disk.id: volume_gib(target, disk, sizes[disk.id]) for disk in run.disks},
            "source_bytes": sum(sizes.values()),
            "image_strategy": _strategy(run) if run.migration.route.lands else None,
        }

    def _source(self, run: MigrationRun) -> tuple[dict[str, int], list[str]]:
        """Sizes in bytes by disk, and what is wrong on the source side."""
        connection = run.migration.source.agent
        try:
            with run.agent() as agent:
                agent.check_version()
                offered = offered_disks(agent)
        except WaveliftError as error:
            return {}, [_finding(f"Agent (connection {connection})", error)]
        findings = []
        sizes: dict[str, int] = {}
        for disk in run.disks:
            if disk.id not in offered:
                names = ", ".join(sorted(offered)) or "none"
                findings.append(
                    f"Disk {disk.id} is not offered by the agent (connection {connection}); it offers: {names}. "
                    "Correct source.disks in the manifest, or start the agent with this disk."
                )
                continue
            if trouble := offered[disk.id].get("error"):
                findings.append(
                    f"Disk {disk.id}: [{trouble['code']}] {trouble['message']} What to do: {trouble['remedy']}"
                )
                continue
            sizes[disk.id] = int(offered[disk.id]["size"])
            findings += self._volume(run, disk.id, disk.volume_gib, sizes[disk.id], disk.boot)
        return sizes, findings

    def _volume(self, run: MigrationRun, disk: str, gib: int | None, size: int, boot: bool) -> list[str]:
        smallest = smallest_gib(run.migration.target, boot=boot)
        if gib is None:
            return []
        if gib * GIB < size:
            return [
                f"Disk {disk} has {size} bytes, its volume would have {gib} GiB ({gib * GIB} bytes) and be too small. "
                f"Set volume_gib of {disk} to {-(-size // GIB)} or more, or leave it out."
            ]
        if gib < smallest:
            return [
                f"volume_gib of {disk} is {gib}, the disk category needs at least {smallest}. Raise or leave it out."
            ]
        return []

    def _cloud(self, run: MigrationRun, sizes: Mapping[str, int]) -> list[str]:
        connection = run.manifest.cloud.connection
        try:
            backend = run.backend()
            backend.check_access()
            volumes = [run.volume_spec(disk, sizes[disk.id]) for disk in run.disks if disk.id in sizes]
            return list(backend.check_target(run.instance_spec("", 0), volumes))
        except (BackendError, WaveliftError) as error:
            return [_finding(f"Cloud (connection {connection})", error)]

    def _archives(self, run: MigrationRun) -> list[str]:
        """Whether what the route goes through can be used."""
        findings, manifest = [], run.manifest
        if run.migration.route.uses_archive and manifest.archive is not None:
            try:
                run.archive().check_access()
            except (BackendError, WaveliftError) as error:
                findings.append(_finding(f"Archive (connection {manifest.archive.connection})", error))
        if run.migration.route.seeded and manifest.offline is not None:
            name = manifest.offline.connection
            try:
                shipped_of(find_connection(name), run.labels(), manifest.offline.write)
            except (BackendError, WaveliftError) as error:
                findings.append(_finding(f"Offline disks (connection {name})", error))
        return findings


def _finding(where: str, error: BackendError | WaveliftError) -> str:
    return f"{where}: [{error.code}] {error.message} What to do: {error.remedy}"


def _strategy(run: MigrationRun) -> str:
    """How the instance will come about. Without a snapshot to try it with, provision finds out."""
    return run.backend().image_strategy() or "found out by provision"
