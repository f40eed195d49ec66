"""The end of every run, good or bad: what the manifest does not keep is deleted, and looked for once more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from operators.run import MigrationRun
from operators.step import Event, Outcome, StepFailed, StepOperator
from storage_backends.base import Kind, Resource, Role, StorageBackend
from storage_backends.errors import Conflict, NotFound
from wavelift.manifest.plan import steps_of
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
        route, verified = run.migration.route, self._verified(run, context)
        # First of all nobody writes any more.
        self._forget(run)
        done: dict[str, Any] = {"deleted": {}, "kept": []}
        if route.lands:
            done = self._cloud(run, set(run.migration.keep) if verified else set())
        if route.uses_archive:
            archives = self._archives(run, verified=verified)
            done = {"deleted": done["deleted"] | archives["deleted"], "kept": done["kept"] + archives["kept"]}
        self.log.info("deleted %s, kept %s", done["deleted"], done["kept"])
        return done

    def _cloud(self, run: MigrationRun, keep: set[Keep]) -> dict[str, Any]:
        backend = run.backend()
        generation = _kept_generation(run, backend) if Keep.SNAPSHOTS in keep else 0

        def leave() -> dict[str, str]:
            # A gateway that nobody else uses lets go of all volumes at once.
            return {gateway.id: gateway.kind.value for gateway in run.gateways(backend).leave()}

        deleted = self._sweep(run, backend, lambda each: _is_kept(each, keep, generation), leave)
        for volume in backend.list(run.labels(Role.REPLICA), Kind.VOLUME):
            backend.detach(volume.id)
        return {"deleted": deleted, "kept": _named(backend.list(run.labels()))}

    def _archives(self, run: MigrationRun, *, verified: bool) -> dict[str, Any]:
        """Where the archive is the last stop it is what the run was for: what was read back in earlier cycles stays
        when a later one fails."""
        backend = run.archive()
        keep = not run.migration.route.lands and (verified or _kept_generation(run, backend) > 0)
        deleted = self._sweep(run, backend, lambda _: keep, dict)
        return {"deleted": deleted, "kept": _named(backend.list(run.labels()))}

    def _sweep(
        self,
        run: MigrationRun,
        backend: StorageBackend,
        is_kept: Callable[[Resource], bool],
        first: Callable[[], dict[str, str]],
    ) -> dict[str, str]:
        """Delete what is not kept, `first` before each round; kinds by id of what was. Raises StepFailed."""
        deleted: dict[str, str] = {}
        deadline = time.monotonic() + _SECONDS
        empty_looks = 0
        while empty_looks < _EMPTY_LOOKS:
            deleted |= first()
            found = [each for each in backend.list(run.labels()) if not is_kept(each)]
            unwanted = sorted(found, key=lambda each: _ORDER.index(each.kind))
            empty_looks = 0 if unwanted else empty_looks + 1
            if time.monotonic() > deadline:
                left = ", ".join(f"{each.kind.value} {each.id} ({each.status})" for each in unwanted)
                raise StepFailed(
                    f"Still there after {_SECONDS:.0f} s: {left}.",
                    "Clear this task to try again, or delete them in the cloud's console.",
                )
            for resource in unwanted:
                deleted[resource.id] = resource.kind.value
                self._delete(backend, resource)
            time.sleep(_PAUSE_SECONDS)
        return deleted

    def _verified(self, run: MigrationRun, context: Context) -> bool:
        """Whether the last step before this one went well."""
        last = steps_of(run.migration)[-2]
        states = context["ti"].get_task_states(
            dag_id=context["dag"].dag_id, task_ids=[last], run_ids=[context["run_id"]]
        )
        return bool(states.get(context["run_id"], {}).get(last) == "success")

    def _delete(self, backend: StorageBackend, resource: Resource) -> None:
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


def _named(resources: Iterable[Resource]) -> list[dict[str, str]]:
    return [{"kind": each.kind.value, "id": each.id} for each in resources]


def _kept_generation(run: MigrationRun, backend: StorageBackend) -> int:
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
