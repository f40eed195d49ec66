"""Run the image, or start the donor, and prove that the machine works: its console, its ports, its screen."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from operators.checks import CheckOutcome, evaluate, tail
from operators.evidence import EvidenceLink, evidence_folder
from operators.image import HOLDS
from operators.run import MigrationRun
from operators.step import Event, Outcome, StepFailed, StepOperator
from operators.triggers import BootTrigger
from storage_backends.base import BootableBackend, Kind, Resource, Role, State
from storage_backends.errors import BackendError, NotFound

if TYPE_CHECKING:
    from airflow.sdk import Context


class BootFailed(StepFailed):
    """The instance did not come up as the manifest's checks demand."""

    default_code = "boot_failed"


class BootVerifyOperator(StepOperator):
    """Instance running, every check of the manifest holds, screenshot saved as PNG."""

    operator_extra_links = (EvidenceLink(),)

    def advance(self, run: MigrationRun, context: Context, event: Event) -> Outcome:
        backend = run.backend()
        generation = run.latest_generation(backend)
        instance = _instance(run, backend, generation)
        if not event and instance.tag(HOLDS):
            backend.start_instance(instance.id)
            instance = backend.get(Kind.INSTANCE, instance.id)
        if pending := self.wait_for(run, [instance]):
            return pending
        checks = run.migration.checks
        console = backend.console(instance.id)
        outcome = evaluate(checks, console, instance.address)
        if instance.state is State.STOPPED:
            outcome = CheckOutcome(outcome.results, outcome.hopeless or "the instance has switched itself off")
        if not outcome.passed and not outcome.hopeless and not event.get("watched"):
            return BootTrigger(
                run.manifest.cloud.model_dump(),
                instance.id,
                instance.address,
                [check.model_dump() for check in checks],
                run.migration.boot_timeout,
            )
        evidence = self._keep_evidence(run, backend, instance, console, outcome)
        for result in outcome.results:
            self.log.info("%s %s: %s", "PASS" if result.passed else "FAIL", result.check, result.evidence)
        if not outcome.passed:
            raise BootFailed(_why(run, instance, console, outcome), _remedy(outcome, evidence))
        return {
            "generation": generation,
            "instance": instance.id,
            "address": instance.address,
            "checks": [asdict(result) for result in outcome.results],
            **evidence,
        }

    def _keep_evidence(
        self,
        run: MigrationRun,
        backend: BootableBackend,
        instance: Resource,
        console: str,
        outcome: CheckOutcome,
    ) -> dict[str, Any]:
        folder = evidence_folder(run.run)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "console.txt").write_text(console, encoding="utf-8")
        (folder / "checks.json").write_text(json.dumps(asdict(outcome), indent=2), encoding="utf-8")
        try:
            (folder / "screenshot.png").write_bytes(backend.screenshot(instance.id))
        except BackendError as error:
            # A machine that has switched itself off has no screen; its console is kept all the same.
            if outcome.passed:
                raise
            self.log.warning("no screenshot: %s", error)
        return {"screenshot": str(folder / "screenshot.png"), "console": str(folder / "console.txt")}


def _instance(run: MigrationRun, backend: BootableBackend, generation: int) -> Resource:
    """The donor, or what runs the image, made where it is not there. Raises NotFound when there is neither."""
    labels = run.labels(Role.TARGET, generation=generation)
    for donor in backend.list(labels, Kind.INSTANCE):
        if donor.tag(HOLDS):
            return donor
    images = backend.list(run.labels(Role.PREPARED, generation=generation), Kind.IMAGE)
    if not images:
        raise NotFound(f"{run.key} has no image of generation {generation}.", "Clear the task image.")
    system = run.snapshots(backend, Role.PREPARED, generation)[run.disks[0].id]
    return backend.run_instance(labels, run.instance_spec(images[0].id, system.size_gib))


def _why(run: MigrationRun, instance: Resource, console: str, outcome: CheckOutcome) -> str:
    if outcome.hopeless:
        reason = f"its console shows {outcome.hopeless.strip()!r}"
    else:
        failed = "; ".join(f"{each.check}: {each.evidence}" for each in outcome.results if not each.passed)
        reason = f"after {run.migration.boot_timeout:.0f} s these checks do not hold: {failed}"
    headline = f"Instance {instance.id} of {run.key} did not boot as it should: {reason}."
    return f"{headline}\nLast console lines:\n{tail(console)}\n"


def _remedy(outcome: CheckOutcome, evidence: dict[str, Any]) -> str:
    where = f"see {evidence['screenshot']} and {evidence['console']}"
    if outcome.hopeless:
        return f"{where}; the source is untouched, what this run made is deleted; mend the cause and trigger a new run."
    return f"{where}; raise boot_timeout if the machine was merely slow, or correct the check."
