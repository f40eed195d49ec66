"""Generation 1: all of every disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from operators.replicate import replicate
from operators.run import MigrationRun
from operators.step import Event, Outcome, StepOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class FullCopyOperator(StepOperator):
    """One job for all disks of the host: they are one generation, share one budget, and end together."""

    def advance(self, run: MigrationRun, context: Context, event: Event) -> Outcome:
        return replicate(self, run, generation=1, base=None, event=event)
