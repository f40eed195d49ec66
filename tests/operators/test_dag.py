"""Manifests as DAGs: what Airflow gets to see of a good and of a broken one, and what the DAG files offer."""

from __future__ import annotations

import runpy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException

from operators.dag import build_invalid_dag, build_migration_dag, build_wave_dag, load_all, migration_dag_id
from operators.step import StepOperator
from wavelift.manifest.load import ManifestError, load
from wavelift.manifest.schema import Manifest

REPO = Path(__file__).resolve().parents[2]
DEMO = REPO / "manifests" / "demo.yaml"
ORDER = [
    "preflight",
    "provision",
    "full_copy",
    "snapshot",
    "incremental_loop",
    "driver_inject",
    "image",
    "boot_verify",
    "cleanup",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Manifests: the demo's, one with three migrations, and one with a misspelt field."""
    text = DEMO.read_text()
    three = yaml.safe_load(text)
    three |= {"wave": "shop", "concurrency": 2, "description": "Three servers of a shop"}
    (one,) = three["migrations"]
    three["migrations"] = [{**one, "name": name} for name in ("web", "db-1", "cache")]
    (tmp_path / "demo.yaml").write_text(text)
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(three))
    (tmp_path / "typo.yaml").write_text(text.replace("  instance_type:", "  instnce_type:"))
    (tmp_path / "notes.txt").write_text("not a manifest")
    return tmp_path


@pytest.fixture
def demo() -> Manifest:
    return load(DEMO)


@pytest.fixture
def shop(folder: Path) -> Manifest:
    return load(folder / "shop.yaml")


def test_a_migration_is_its_nine_steps_in_a_row(demo: Manifest) -> None:
    dag = build_migration_dag(demo, demo.migrations[0])
    assert dag.dag_id == "migrate__demo__web"
    assert set(dag.task_ids) == {*ORDER, "verified"}
    for before, after in pairwise(ORDER):
        assert after in dag.task_dict[before].downstream_task_ids
        assert dag.task_dict[after].upstream_task_ids == {before}
    assert [task.task_id for task in dag.roots] == ["preflight"]
    steps = [dag.task_dict[name] for name in ORDER]
    assert all(isinstance(step, StepOperator) and step.doc_md == type(step).__doc__ for step in steps)
    assert all(step.retries >= 2 for step in steps)


def test_cleanup_runs_whatever_happened_and_decides_nothing(demo: Manifest) -> None:
    """The run's state hangs on `verified`, which only a verified machine reaches, and on a cleanup that failed."""
    dag = build_migration_dag(demo, demo.migrations[0])
    cleanup, verified = dag.task_dict["cleanup"], dag.task_dict["verified"]
    assert cleanup.is_teardown and cleanup.on_failure_fail_dagrun
    assert cleanup.trigger_rule == "all_done_setup_success"
    assert verified.upstream_task_ids == {"boot_verify"} and verified.trigger_rule == "all_success"
    assert not verified.is_teardown and verified.downstream_task_ids == set()
    assert {task.task_id for task in dag.leaves} == {"cleanup", "verified"}
    assert not [task for task in dag.tasks if task.is_teardown and task is not cleanup]


def test_a_migrations_dag_says_what_it_will_do(demo: Manifest) -> None:
    dag = build_migration_dag(demo, demo.migrations[0])
    assert dag.tags == {"wavelift", "migration", "wave:demo"}
    assert dag.max_active_runs == 1 and not dag.catchup and dag.schedule is None
    assert dag.is_paused_upon_creation is False
    assert dag.description == "Migrate web to cn-local"
    assert dag.doc_md is not None and dag.doc_md.startswith("### demo / web\n")
    for step in ("provision", "snapshot", "image", "boot_verify"):
        assert f"| {step} | " in dag.doc_md


def test_a_wave_triggers_its_migrations_so_many_at_a_time(shop: Manifest) -> None:
    dag = build_wave_dag(shop)
    assert dag.dag_id == "wave__shop" and dag.tags == {"wavelift", "wave"} and dag.max_active_runs == 1
    assert dag.doc_md is not None and "Migrations: web, db-1, cache. 2 at a time." in dag.doc_md
    (task,) = dag.tasks
    mapped: Any = task
    assert mapped.operator_class is TriggerDagRunOperator
    assert mapped.expand_input.value == {
        "trigger_dag_id": ["migrate__shop__web", "migrate__shop__db-1", "migrate__shop__cache"]
    }
    assert mapped.max_active_tis_per_dagrun == 2
    partial = mapped.partial_kwargs
    assert partial["trigger_run_id"] == "{{ run_id }}"
    assert partial["wait_for_completion"] and partial["deferrable"] and partial["failed_states"] == ["failed"]


def test_each_migration_of_a_wave_has_a_dag_of_its_own(shop: Manifest) -> None:
    dags = {dag.dag_id: dag for dag in (build_migration_dag(shop, each) for each in shop.migrations)}
    assert list(dags) == ["migrate__shop__web", "migrate__shop__db-1", "migrate__shop__cache"]
    for migration in shop.migrations:
        dag = dags[migration_dag_id(shop, migration)]
        assert {step.migration.name for step in dag.tasks if isinstance(step, StepOperator)} == {migration.name}


def test_a_broken_manifest_becomes_a_dag_that_explains_itself(folder: Path) -> None:
    found = dict(load_all(folder))
    assert [path.name for path in found] == ["demo.yaml", "shop.yaml", "typo.yaml"]
    path = folder / "typo.yaml"
    error = found[path]
    assert isinstance(error, ManifestError)
    dag = build_invalid_dag(path, error)
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if "instnce_type" in text)
    problem = f"{path}:{line}:7: migrations[0].target.instnce_type: unknown field; did you mean `instance_type`?"
    assert dag.dag_id == "invalid__typo" and "invalid-manifest" in dag.tags
    assert dag.doc_md is not None and problem in dag.doc_md
    assert dag.description is not None and "typo.yaml cannot be used: " in dag.description
    (task,) = dag.tasks
    with pytest.raises(AirflowFailException) as caught:
        task.execute({})
    assert problem in str(caught.value)


def dags_of(file: str, folder: Path, monkeypatch: pytest.MonkeyPatch, wanted: str | None = None) -> set[str]:
    """The DAGs that Airflow finds in a file of dags/, as its DAG processor (or a starting task) imports it."""
    monkeypatch.setenv("AIRFLOW__WAVELIFT__MANIFESTS_DIR", str(folder))
    if wanted is not None:
        monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", wanted)
    found = [value for value in runpy.run_path(str(REPO / "dags" / file)).values() if isinstance(value, DAG)]
    return {dag.dag_id for dag in found}


MIGRATIONS = {"migrate__demo__web", "migrate__shop__web", "migrate__shop__db-1", "migrate__shop__cache"}


def test_the_dag_files_offer_every_manifest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dags_of("migrations.py", folder, monkeypatch) == {*MIGRATIONS, "invalid__typo"}
    assert dags_of("waves.py", folder, monkeypatch) == {"wave__demo", "wave__shop"}


def test_a_starting_task_gets_no_other_migration(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = dags_of("migrations.py", folder, monkeypatch, wanted="migrate__shop__db-1")
    assert found & MIGRATIONS == {"migrate__shop__db-1"}
    assert dags_of("waves.py", folder, monkeypatch, wanted="wave__shop") == {"wave__shop"}
    assert dags_of("waves.py", folder, monkeypatch, wanted="migrate__shop__db-1") == set()


def test_no_manifests_are_no_dags_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dags_of("migrations.py", tmp_path, monkeypatch) == set()
    assert dags_of("waves.py", tmp_path / "missing", monkeypatch) == set()
