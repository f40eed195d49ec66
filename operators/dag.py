"""Manifests as DAGs: one per migration, one per wave."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.configuration import conf
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, BaseOperator, chain
from airflow.sdk.exceptions import AirflowFailException

from operators.boot_verify import BootVerifyOperator
from operators.cleanup import CleanupOperator
from operators.driver_inject import DriverInjectOperator
from operators.full_copy import FullCopyOperator
from operators.image import ImageOperator
from operators.incremental_loop import IncrementalLoopOperator
from operators.preflight import PreflightOperator
from operators.provision import ProvisionOperator
from operators.snapshot import SnapshotOperator
from operators.step import StepOperator
from wavelift.manifest.load import ManifestError, load
from wavelift.manifest.plan import plan, steps_of
from wavelift.manifest.schema import Manifest, Migration

OPERATORS: dict[str, type[StepOperator]] = {
    "preflight": PreflightOperator,
    "provision": ProvisionOperator,
    "full_copy": FullCopyOperator,
    "snapshot": SnapshotOperator,
    "incremental_loop": IncrementalLoopOperator,
    "driver_inject": DriverInjectOperator,
    "image": ImageOperator,
    "boot_verify": BootVerifyOperator,
    "cleanup": CleanupOperator,
}
_START = datetime(2026, 1, 1)
# Five minutes in all: an outage of agent, gateway or cloud must not cost a long copy.
_RETRY = {
    "retries": 5,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
}


def migration_dag_id(manifest: Manifest, migration: Migration) -> str:
    return f"migrate__{manifest.wave}__{migration.name}"


def wave_dag_id(manifest: Manifest) -> str:
    return f"wave__{manifest.wave}"


def manifests_folder() -> Path:
    """[wavelift] manifests_dir of airflow.cfg."""
    return Path(os.path.expandvars(conf.get_mandatory_value("wavelift", "manifests_dir")))


def load_all(folder: Path) -> Iterator[tuple[Path, Manifest | ManifestError]]:
    """Every manifest of a folder, in the order of names; one that cannot be used comes as its error."""
    for path in sorted(folder.glob("*.yaml")):
        try:
            yield path, load(path)
        except ManifestError as error:
            yield path, error


def build_migration_dag(manifest: Manifest, migration: Migration) -> DAG:
    """The steps of its route in a row; cleanup is a teardown, so it runs whatever happens before it.

    The run succeeds when the last step before cleanup did, which verifies the instance where the route ends in one,
    and cleanup left nothing that is not kept.
    """
    with DAG(
        dag_id=migration_dag_id(manifest, migration),
        description=f"Migrate {migration.name} to {manifest.cloud.region}",
        doc_md=_migration_doc(manifest, migration),
        start_date=_START,
        schedule=None,
        catchup=False,
        max_active_runs=1,
        tags=["wavelift", "migration", f"wave:{manifest.wave}"],
        default_args=_RETRY,
        is_paused_upon_creation=False,
    ) as dag:
        steps: list[BaseOperator] = [
            OPERATORS[name](task_id=name, manifest=manifest, migration=migration, doc_md=OPERATORS[name].__doc__)
            for name in steps_of(migration)
        ]
        chain(*steps)
        *_, last, cleanup = steps
        # The run's state is that of its leaves, and a teardown that went well would make every run a success.
        last >> EmptyOperator(task_id="verified", doc_md="The run ends well only if this is reached.")
        cleanup.as_teardown(on_failure_fail_dagrun=True)
    return dag


def build_wave_dag(manifest: Manifest) -> DAG:
    """Triggers the wave's migrations, so many at a time, under its own run id, and waits for them."""
    with DAG(
        dag_id=wave_dag_id(manifest),
        description=manifest.description or f"Wave {manifest.wave}",
        doc_md=_wave_doc(manifest),
        start_date=_START,
        schedule=None,
        catchup=False,
        max_active_runs=1,
        tags=["wavelift", "wave"],
        is_paused_upon_creation=False,
    ) as dag:
        TriggerDagRunOperator.partial(
            task_id="migrate",
            trigger_run_id="{{ run_id }}",
            wait_for_completion=True,
            deferrable=True,
            poke_interval=5,
            failed_states=["failed"],
            # Clearing this task runs the migration again, under the same run id.
            reset_dag_run=True,
            max_active_tis_per_dagrun=manifest.concurrency,
        ).expand(trigger_dag_id=[migration_dag_id(manifest, each) for each in manifest.migrations])
    return dag


class InvalidManifest(BaseOperator):
    """Says in Airflow what is wrong with a manifest, so that a broken file is seen and breaks no other."""

    def __init__(self, *, problems: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.problems = problems

    def execute(self, context: Any) -> None:
        raise AirflowFailException(self.problems)


def build_invalid_dag(path: Path, error: ManifestError) -> DAG:
    """Stands in the list for a manifest that cannot be used."""
    with DAG(
        dag_id=f"invalid__{path.stem}",
        description=f"{path.name} cannot be used: {error.problems[0]}",
        doc_md=f"`{path}` cannot be used:\n\n```\n{error}\n```",
        start_date=_START,
        schedule=None,
        catchup=False,
        tags=["wavelift", "invalid-manifest"],
        is_paused_upon_creation=False,
    ) as dag:
        InvalidManifest(task_id="manifest", problems=str(error))
    return dag


def _migration_doc(manifest: Manifest, migration: Migration) -> str:
    rows = "\n".join(
        f"| {line.step} | {line.action} | {'yes' if line.kept else ''} |" for line in plan(manifest)[migration.name]
    )
    return f"### {manifest.wave} / {migration.name}\n\n| step | what | kept |\n|---|---|---|\n{rows}\n"


def _wave_doc(manifest: Manifest) -> str:
    names = ", ".join(migration.name for migration in manifest.migrations)
    return (
        f"### Wave {manifest.wave}\n\n{manifest.description}\n\nMigrations: {names}. {manifest.concurrency} at a time."
    )
