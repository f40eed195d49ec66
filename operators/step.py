"""How a step meets Airflow: it advances as far as it can, waits, and comes back to itself.

A step never trusts what it remembered or what an event says: each time it is entered it reads the state of agent,
gateway and cloud again and does the next thing that is missing. So a retry, a cleared task or a killed process all
mean the same: entering once more. Jobs, snapshots, images and boots are waited for in the triggerer unless they end
within seconds; attaching a volume and starting the gateway are waited for in the task.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.triggers.base import BaseTrigger

from operators.run import MigrationRun
from operators.spread import JobService
from operators.triggers import JobTrigger, ResourceTrigger, WaitTrigger
from storage_backends.base import Kind, Resource, State
from storage_backends.errors import BackendError, Denied, InvalidRequest, QuotaExceeded, Unavailable
from wavelift.service.client import ServiceError
from wavelift.service.errors import WaveliftError
from wavelift.service.jobs import JobState, JobStatus

if TYPE_CHECKING:
    from airflow.sdk import Context

    from wavelift.manifest.schema import Manifest, Migration

Outcome = BaseTrigger | dict[str, Any]
Event = Mapping[str, Any]
# A wait up to this long holds the worker slot; resuming a deferred task costs about as much.
_PATIENCE_SECONDS = 10.0
# What a retry cannot mend: somebody has to change the manifest, a connection or the source first.
_PERMANENT = frozenset(
    {
        "unauthorized",
        "forbidden",
        "invalid",
        "disk_not_found",
        "volume_too_small",
        "unsupported_source",
        "unsupported_guest",
        "no_operating_system",
        "root_mismatch",
        "boot_failed",
        "gateway_stopped",
        "run_ended",
        "stale_generation",
        "wrong_fingerprint",
        "version_mismatch",
    }
)


class StepFailed(WaveliftError):
    """A step found something wrong that is neither the cloud's nor a service's error."""

    default_code = "step_failed"


class StepOperator(BaseOperator):
    """Base of the steps: subclasses say in `advance` what to do next."""

    template_fields = ()
    ui_color = "#e8f1fb"

    def __init__(self, *, manifest: Manifest, migration: Migration, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.manifest = manifest
        self.migration = migration

    @abstractmethod
    def advance(self, run: MigrationRun, context: Context, event: Event) -> Outcome:
        """Do what is missing: a trigger to wait for, or the step's result once nothing is."""

    def execute(self, context: Context, event: Any = None) -> dict[str, Any]:
        run = MigrationRun.of(self.manifest, self.migration, context)
        # Airflow's own triggers bring events of other kinds, a datetime for one.
        seen: Event = event if isinstance(event, Mapping) else {}
        while True:
            try:
                outcome = self.advance(run, context, seen)
            except (BackendError, WaveliftError) as error:
                raise _failure(error) from error
            if not isinstance(outcome, BaseTrigger):
                return outcome
            came = _wait_briefly(outcome, context) if isinstance(outcome, WaitTrigger) else None
            if came is None:
                self.defer(trigger=outcome, method_name="execute")
            seen = came

    def job(self, service: JobService, key: str, spec: Mapping[str, Any], event: Event) -> JobStatus:
        """The job of that key, submitted when it is not there, or when it failed in an earlier try.

        Raises the job's own error when it failed while this try waited for it. Submitting a job that runs gives it
        fresh credentials and changes nothing else.
        """
        waited = event.get("job") == key and not event.get("submit")
        status = service.job(key) if waited else service.submit(key, spec)
        if status.state is JobState.FAILED and status.error is not None:
            error = status.error
            raise ServiceError(error.code, f"{key}: {error.message}", error.remedy, 200)
        if status.state is JobState.CANCELLED:
            raise StepFailed(f"Job {key} was cancelled.", "Clear this task to run it again.")
        return status

    def wait_for_agent(self, run: MigrationRun, key: str) -> JobTrigger:
        """Back as well when a gateway that the agent sends to has died: entering the step once more replaces it."""
        if not run.migration.route.lands:
            return JobTrigger.on_agent(run.migration.source.agent, key)
        return JobTrigger.on_agent(
            run.migration.source.agent, key, run.manifest.cloud.model_dump(), run.labels(), run.gateway_labels()
        )

    def wait_for_gateway(self, run: MigrationRun, key: str) -> JobTrigger:
        cloud = run.manifest.cloud
        return JobTrigger.on_gateway(cloud.model_dump(), run.labels(), run.gateway_labels(), key)

    def wait_for(self, run: MigrationRun, resources: list[Resource]) -> ResourceTrigger | None:
        """A trigger for those that are still pending, None when all are ready. Raises StepFailed for failed ones."""
        for resource in resources:
            if resource.state is State.FAILED:
                raise StepFailed(
                    f"{resource.kind.value.capitalize()} {resource.id} ended as {resource.status}.",
                    "Look at it in the cloud's console; the task may be retried.",
                )
        pending = [resource.id for resource in resources if resource.state is State.PENDING]
        if not pending:
            return None
        kind: Kind = resources[0].kind
        return ResourceTrigger(run.manifest.cloud.model_dump(), kind.value, pending)


def _wait_briefly(trigger: WaitTrigger, context: Context) -> Event | None:
    """The trigger's event when it comes soon, None when the wait is one for the triggerer."""
    task_instance: Any = context["ti"]
    trigger.task_instance = task_instance

    async def wait() -> Event:
        return await asyncio.wait_for(trigger.wait(), _PATIENCE_SECONDS)

    try:
        return asyncio.run(wait())
    except TimeoutError:
        return None


def _failure(error: BackendError | WaveliftError) -> AirflowException:
    """What, where and what to do, as the task's error; without retries where they cannot help."""
    sentence = f"[{error.code}] {error.message} What to do: {error.remedy}"
    permanent = error.code in _PERMANENT or (
        isinstance(error, Denied | InvalidRequest | QuotaExceeded) and not isinstance(error, Unavailable)
    )
    return AirflowFailException(sentence) if permanent else AirflowException(sentence)
