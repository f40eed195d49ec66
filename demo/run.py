"""Run a wave through Airflow's REST API and say what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from demo.airflow_api import AirflowApi
from wavelift.manifest.plan import STEPS
from wavelift.manifest.schema import Manifest

_DONE = frozenset({"success", "failed", "upstream_failed", "skipped"})
_POLL_SECONDS = 1.0


@dataclass
class MigrationView:
    """Where one migration stands, as Airflow's REST API tells it."""

    name: str
    dag_id: str
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)

    @property
    def step(self) -> str:
        """The step under way, or the last one that ended."""
        states = {step: self.tasks.get(step, {}).get("state") for step in STEPS}
        active = [step for step in STEPS if states[step] not in (None, *_DONE)]
        ended = [step for step in STEPS if states[step] in _DONE]
        return active[0] if active else ended[-1] if ended else "waiting"

    def state(self, step: str) -> str | None:
        value = self.tasks.get(step, {}).get("state")
        return str(value) if value else None

    def failed_step(self) -> str | None:
        return next((step for step in STEPS if self.state(step) == "failed"), None)


@dataclass(frozen=True)
class WaveResult:
    """How a wave ended. `error` is the failed task's own message, by migration."""

    run_id: str
    state: str
    views: dict[str, MigrationView]
    errors: dict[str, str]

    @property
    def verified(self) -> bool:
        """Every migration's last step before its cleanup went well: where the route ends in an instance, it booted."""
        return self.state == "success" and all(view.state("verified") == "success" for view in self.views.values())


def run_wave(
    api: AirflowApi,
    manifest: Manifest,
    *,
    on_change: Callable[[dict[str, MigrationView]], None],
    on_step_done: Callable[[str, str], None] = lambda migration, step: None,
    seconds: float = 3600.0,
) -> WaveResult:
    """Trigger the wave's DAG and watch it to the end. `on_step_done(migration, step)` comes once per success."""
    wave_dag = f"wave__{manifest.wave}"
    views = {
        each.name: MigrationView(each.name, f"migrate__{manifest.wave}__{each.name}") for each in manifest.migrations
    }
    for dag_id in (wave_dag, *(view.dag_id for view in views.values())):
        api.wait_for_dag(dag_id)
    run_id = f"{manifest.wave}-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    api.trigger(wave_dag, run_id)
    told: set[tuple[str, str]] = set()
    deadline = time.monotonic() + seconds
    while True:
        state = api.run_state(wave_dag, run_id) or "queued"
        for view in views.values():
            _look(api, view, run_id)
            for step in STEPS:
                if view.state(step) == "success" and (view.name, step) not in told:
                    told.add((view.name, step))
                    on_step_done(view.name, step)
        on_change(views)
        if state in ("success", "failed"):
            break
        if time.monotonic() > deadline:
            state = "timed out"
            break
        time.sleep(_POLL_SECONDS)
    errors = {}
    for view in views.values():
        if failed := view.failed_step():
            attempt = int(view.tasks[failed]["try_number"])
            errors[view.name] = f"{failed}: {api.error_of(view.dag_id, run_id, failed, attempt)}"
    return WaveResult(run_id, state, views, errors)


def _look(api: AirflowApi, view: MigrationView, run_id: str) -> None:
    view.tasks = api.tasks(view.dag_id, run_id)
    step = view.step
    view.progress = {}
    if view.state(step) in ("deferred", "running"):
        view.progress = api.xcom(view.dag_id, run_id, step, "progress") or {}


def summary(api: AirflowApi, view: MigrationView, run_id: str) -> dict[str, Any]:
    """What a migration moved, made and proved, from the results of its tasks."""
    results = {step: api.xcom(view.dag_id, run_id, step) or {} for step in STEPS}
    cycles = results["incremental_loop"].get("cycles") or []
    last = cycles[-1] if cycles else results["full_copy"]
    snapshots = cycles[-1]["snapshots"] if cycles else results["snapshot"].get("snapshots", {})
    boot = results["boot_verify"]
    return {
        "migration": view.name,
        "generation": last.get("generation"),
        "source_root": last.get("source_root"),
        "target_root": last.get("target_root"),
        "sent_bytes": {
            "full": results["full_copy"].get("sent_bytes"),
            "cycles": [each["sent_bytes"] for each in cycles],
        },
        "wire_bytes": {
            "full": results["full_copy"].get("wire_bytes"),
            "cycles": [each["wire_bytes"] for each in cycles],
        },
        "snapshots": snapshots,
        "image": results["image"].get("image"),
        "instance": boot.get("instance"),
        "address": boot.get("address"),
        "checks": boot.get("checks", []),
        "screenshot": boot.get("screenshot"),
        "console": boot.get("console"),
        "kept": results["cleanup"].get("kept", []),
        "seconds": _seconds_per_step(view),
    }


def _seconds_per_step(view: MigrationView) -> dict[str, float | None]:
    """Wall clock from the end of the step before, so that queueing, waiting and retries count too."""
    seconds: dict[str, float | None] = {}
    before = view.tasks.get(STEPS[0], {}).get("queued_when")
    for step in STEPS:
        end = view.tasks.get(step, {}).get("end_date")
        if before and end:
            spent = datetime.fromisoformat(end) - datetime.fromisoformat(before)
            seconds[step] = round(spent.total_seconds(), 1)
        else:
            seconds[step] = None
        before = end
    return seconds


def console_text(summary_of: dict[str, Any]) -> str:
    return Path(summary_of["console"]).read_text(encoding="utf-8") if summary_of["console"] else ""
