"""Sync cycles after the full copy: wait, send what changed, verify, snapshot, and write down what happened."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.triggers.temporal import DateTimeTrigger

from operators.replicate import Base, replicate
from operators.run import MigrationRun
from operators.snapshot import take_snapshots
from operators.step import Event, Outcome, StepOperator
from operators.triggers import WaitTrigger
from storage_backends.base import Role

if TYPE_CHECKING:
    from airflow.sdk import Context

# The cycles done and the time of the next one outlive retries here, unlike an XCom. They count only for the volumes
# they were made on: a run that is cleared after its cleanup starts over.
_STATE = "loop"


class IncrementalLoopOperator(StepOperator):
    """As many cycles as the manifest says. The result lists the record of each."""

    def advance(self, run: MigrationRun, context: Context, event: Event) -> Outcome:
        store = context["task_state_store"]
        home = run.home()
        sync = run.migration.sync
        stored: Any = store.get(_STATE)
        volumes = {disk.id: run.volume(home, disk.id).id for disk in run.disks}
        if stored and stored["volumes"] == volumes:
            state: dict[str, Any] = stored
        else:
            committed = run.committed()
            roots = {disk["disk"]: disk["root"] for disk in committed["disks"]}
            state = {
                "cycles": [],
                "next": _in(sync.interval),
                "volumes": volumes,
                "base": int(committed["generation"]),
                "roots": roots,
            }
        store.set(_STATE, state)
        while len(state["cycles"]) < sync.cycles:
            start = datetime.fromisoformat(state["next"])
            if (left := (start - datetime.now(UTC)).total_seconds()) > WaitTrigger.delay:
                return DateTimeTrigger(moment=start)
            time.sleep(max(left, 0.0))
            base = Base(state["base"], state["roots"])
            record = replicate(self, run, base.generation + 1, base, event)
            if not isinstance(record, dict):
                return record
            generation = record["generation"]
            taken = take_snapshots(self, run, generation)
            if not isinstance(taken, dict):
                return taken
            if run.migration.route.lands:
                pruned = run.backend().prune_snapshots(run.labels(Role.REPLICA), sync.snapshots)
                self.log.info("snapshots deleted by the policy: %s", [each.id for each in pruned])
            # Lag: how old the oldest change not yet in the cloud can be now, the migration's RPO.
            lag = (datetime.now(UTC) - start).total_seconds()
            cycle = {**record, "snapshots": taken, "lag_seconds": round(lag, 1)}
            cycles = [*state["cycles"], cycle]
            roots = {disk["disk"]: disk["root"] for disk in record["disks"]}
            state = {**state, "cycles": cycles, "next": _in(sync.interval), "base": generation, "roots": roots}
            store.set(_STATE, state)
            self.log.info("cycle %d: %s", generation, state["cycles"][-1])
        return {"cycles": state["cycles"]}


def _in(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
