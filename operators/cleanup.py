"""The end of every run, good or bad: what the manifest does not keep is deleted, and looked for once more."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from operators.run import MigrationRun
from operators.step import Event, Outcome, StepFailed, StepOperator
from storage_backends.base import BootableBackend, Kind, Resource, Role
from storage_backends.errors import Conflict, NotFound
from wavelift.manifest.schema import Keep
from wavelift.service.errors import WaveliftError

if TYPE_CHECKING:
    from airflow.sdk import Context

_ORDER = (Kind.INSTANCE, Kind.IMAGE, Kind.VOLUME, Kind.SNAPSHOT)
_SECONDS = 600.0
# A listing may be stale, and a task that was failed by hand lives on for up to five seconds: look twice.
_EMPTY_LOOKS = 2
_PAUSE_SECONDS = 3.0


class CleanupOperator(StepOperator):
    """A teardown: runs whatever happened. A run that was not verified keeps nothing."""

    def advance(self, run: MigrationRun, context: Context, event: Event) -> Outcome:
        backend = run.backend()
        keep = set(run.migration.keep) if self._verified(context) else set()
        generation = _kept_generation(run, backend) if Keep.SNAPSHOTS in keep else 0
        # First of all nobody writes any more.
        self._forget(run)
        deleted: dict[str, str] = {}
        deadline = time.monotonic() + _SECONDS
        empty_looks = 0
        while empty_looks < _EMPTY_LOOKS:
            unwanted = self._unwanted(run, backend, keep, generation)
            empty_looks = 0 if unwanted else empty_looks + 1
            if time.monotonic() > deadline:
                left = ", ".join(f"{each.kind.value} {each.id} ({each.status})" for each in unwanted)
                raise StepFailed(
                    f"Still in the cloud after {_SECONDS:.0f} s: {left}.",
                    "Clear this task to try again, or delete them in the cloud's console.",
                )
            for resource in unwanted:
                deleted[resource.id] = resource.kind.value
                self._delete(backend, resource)
            time.sleep(_PAUSE_SECONDS)
        kept = [{"kind": each.kind.value, "id": each.id} for each in backend.list(run.labels())]
        self.log.info("deleted %s, kept %s", deleted, kept)
        return {"deleted": deleted, "kept": kept}

    def _verified(self, context: Context) -> bool:
        states = context["ti"].get_task_states(
            dag_id=context["dag"].dag_id, task_ids=["boot_verify"], run_ids=[context["run_id"]]
        )
        return bool(states.get(context["run_id"], {}).get("boot_verify") == "success")

    def _unwanted(
        self, run: MigrationRun, backend: BootableBackend, keep: set[Keep], generation: int
    ) -> list[Resource]:
        everything: Iterable[Resource] = backend.list(run.labels())
        unwanted = [each for each in everything if not _is_kept(each, keep, generation)]
        return sorted(unwanted, key=lambda each: _ORDER.index(each.kind))

    def _delete(self, backend: BootableBackend, resource: Resource) -> None:
        try:
            backend.delete(resource)
        except Conflict as error:
            # Something deleted a moment ago still holds it; the next round tries again.
            self.log.info("%s %s waits: %s", resource.kind.value, resource.id, error)

    def _forget(self, run: MigrationRun) -> None:
        """The agent's journals and block maps of this run. An agent that is gone must not keep the cloud busy."""
        try:
            with run.agent() as agent:
                agent.delete(f"/v1/migrations/{run.key}")
        except WaveliftError as error:
            self.log.warning("The agent keeps its state of %s: %s", run.key, error)


def _kept_generation(run: MigrationRun, backend: BootableBackend) -> int:
    try:
        return run.latest_generation(backend)
    except NotFound:
        return 0


def _is_kept(resource: Resource, keep: set[Keep], generation: int) -> bool:
    role = resource.tag("role")
    if role == Role.TARGET:
        return Keep.INSTANCE in keep
    if role == Role.PREPARED:
        return Keep.IMAGE in keep
    if role == Role.REPLICA and resource.kind is Kind.SNAPSHOT:
        return Keep.SNAPSHOTS in keep and resource.tag("generation") == str(generation)
    if role == Role.REPLICA:
        return Keep.VOLUMES in keep
    return False
