"""Rules: which calls they select, at which of them it is their turn, and what then happens."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wavelift.localcloud.faults.kinds import AnyFault, Service, Throttle
from wavelift.localcloud.wildcards import matches

READING = ("Describe", "List")


@dataclass(frozen=True)
class Call:
    """What a rule can know of a call, a passing state or a copy."""

    service: Service
    action: str = ""
    resources: tuple[str, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""


class Rule(BaseModel):
    """In patterns * is any letters and ? is one."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    id: str = Field(default="", pattern=r"^[A-Za-z0-9._-]{0,64}$")
    service: Service | None = None
    action: str = "*"
    resource: str = "*"
    parameters: dict[str, str] = Field(default_factory=dict)
    calls: list[Annotated[int, Field(ge=1)]] | None = Field(default=None, min_length=1)
    first: int | None = Field(default=None, ge=1, alias="from")
    every: int | None = Field(default=None, ge=1)
    probability: float | None = Field(default=None, gt=0, le=1)
    seed: int = 0
    times: int | None = Field(default=None, ge=1)
    fault: AnyFault

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        fault, name = self.fault, self.fault.kind
        if self.service is not None and self.service not in fault.services:
            raise ValueError(f"the fault {name} exists for {', '.join(sorted(fault.services))} only; change `service`")
        if isinstance(fault, Throttle) and fault.retry_after_ms is not None and self.service == "oss":
            raise ValueError("OSS does not say when to come back; remove `retry_after_ms`")
        if self.calls is not None and (self.first is not None or self.every is not None):
            raise ValueError("`calls` names the calls already; remove `from` and `every`, or `calls`")
        if fault.point in {"transition", "copy"} and (self.action != "*" or self.parameters):
            raise ValueError(f"{name} is no answer to an action; remove `action` and `parameters`, use `resource`")
        if fault.only and not matches(self.action, fault.only):
            raise ValueError(f"{name} spoils {fault.only} only; remove `action`")
        if fault.slot == "lag" and self.action != "*" and not self.action.startswith(READING):
            raise ValueError(f"{name} is for reading: `action` must begin with {' or '.join(READING)}")
        return self

    def selects(self, call: Call) -> bool:
        fault = self.fault
        return (
            call.service in fault.services
            and self.service in {None, call.service}
            and matches(self.action, call.action)
            and fault.only in {"", call.action}
            and (fault.slot != "lag" or call.action.startswith(READING))
            and (self.resource == "*" or any(matches(self.resource, name) for name in call.resources))
            and all(matches(value, call.parameters.get(name, "")) for name, value in self.parameters.items())
        )

    def due(self, number: int) -> bool:
        """Is it the rule's turn at the call it selects as the `number`-th? The same answer whenever it is asked."""
        if self.calls is not None and number not in self.calls:
            return False
        start = self.first or 1
        if number < start:
            return False
        if self.every is not None and (number - start + (0 if self.first else 1)) % self.every:
            return False
        # Drawn anew from seed and number: other rules and other calls have no influence.
        return self.probability is None or random.Random(f"{self.seed}/{number}").random() < self.probability
