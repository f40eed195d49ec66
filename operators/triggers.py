"""Waiting without a worker slot. Triggers are stateless: they look, and report that it is worth looking again.

Every trigger can also be waited for in the task itself (`wait`): short waits, which are most of them on a small
migration, then cost no second task start.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from functools import partial
from typing import Any

from airflow.sdk import BaseHook
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from operators.checks import CheckOutcome, evaluate
from operators.gateway_watch import GatewayWatch
from operators.hooks import agent_address, backend_of
from operators.spread import merged
from storage_backends.base import BootableBackend, Kind, Labels, State
from storage_backends.errors import BackendError
from wavelift.manifest.schema import Check
from wavelift.service.client import AsyncServiceClient, ServiceError, ServiceUnreachable
from wavelift.service.errors import WaveliftError
from wavelift.service.jobs import JobStatus

JOB_POLL_SECONDS = 1.0
# A host that reboots or a link that is down must not end a copy of days; after this the task itself reports it.
UNREACHABLE_SECONDS = 3600.0
# Credentials for buckets live an hour, those for gateways six; submitting the job again replaces them.
RENEW_SECONDS = 30 * 60.0
PROGRESS_KEY = "progress"


async def _backend(cloud: Mapping[str, Any]) -> BootableBackend:
    connection = await BaseHook.aget_connection(cloud["connection"])
    return backend_of(connection, cloud["backend"], cloud["region"], cloud["zone"])


class WaitTrigger(BaseTrigger):
    """Base: fires once, `delay` seconds after it was deferred at the earliest.

    An event that comes before the scheduler has seen the deferred process end makes it take the resumed task for a
    lost one; the delay keeps the two apart.
    """

    delay = 5.0

    @abstractmethod
    async def wait(self) -> dict[str, Any]:
        """Return once it is worth looking again: the event."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        await asyncio.sleep(self.delay)
        yield TriggerEvent(await self.wait())


class JobTrigger(WaitTrigger):
    """Waits for a job of an agent or of a run's gateways to end, and publishes its progress as the XCom `progress`.

    Where it is told of gateways, it looks at their instances now and then, and comes back when one has died.
    """

    def __init__(
        self,
        job: str,
        agent: str | None = None,
        cloud: dict[str, Any] | None = None,
        labels: dict[str, Any] | None = None,
        gateways: dict[str, Any] | None = None,
    ) -> None:
        """`labels` are the run's, `gateways` those of the gateways that it shares."""
        super().__init__()
        self.job = job
        self.agent = agent
        self.cloud = cloud
        self.labels = labels
        self.gateways = gateways

    @classmethod
    def on_agent(
        cls,
        connection: str,
        job: str,
        cloud: dict[str, Any] | None = None,
        labels: Labels | None = None,
        gateways: Labels | None = None,
    ) -> JobTrigger:
        return cls(
            job,
            agent=connection,
            cloud=cloud,
            labels=None if labels is None else asdict(labels),
            gateways=None if gateways is None else asdict(gateways),
        )

    @classmethod
    def on_gateway(cls, cloud: dict[str, Any], labels: Labels, gateways: Labels, job: str) -> JobTrigger:
        return cls(job, cloud=cloud, labels=asdict(labels), gateways=asdict(gateways))

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "operators.triggers.JobTrigger",
            {
                "job": self.job,
                "agent": self.agent,
                "cloud": self.cloud,
                "labels": self.labels,
                "gateways": self.gateways,
            },
        )

    async def wait(self) -> dict[str, Any]:
        begun = last_answer = time.monotonic()
        watch = self._watch()
        async with AsyncExitStack() as stack:
            try:
                clients = [await stack.enter_async_context(client) for client in await self._clients(watch)]
            except (BackendError, WaveliftError, AirflowNotFoundException) as error:
                # The step looks for itself and reports what is wrong, with the task's own retries.
                self.log.warning("%s", error)
                return {"job": self.job}
            while True:
                try:
                    status = await self._status(clients)
                except ServiceUnreachable as error:
                    self.log.warning("%s", error)
                    if time.monotonic() - last_answer > UNREACHABLE_SECONDS:
                        return {"job": self.job}
                except WaveliftError as error:
                    self.log.warning("%s", error)
                    gone = isinstance(error, ServiceError) and error.http_status == 404
                    return {"job": self.job, "submit": gone}
                else:
                    last_answer = time.monotonic()
                    self._publish(status)
                    if status.state.final:
                        return {"job": self.job}
                    if last_answer - begun > RENEW_SECONDS:
                        return {"job": self.job, "submit": True}
                if watch is not None and await watch.found_dead():
                    return {"job": self.job, "submit": True}
                await asyncio.sleep(JOB_POLL_SECONDS)

    async def on_kill(self) -> None:
        """The task was failed, cleared or its run deleted by a person: the job must not go on writing."""
        async with AsyncExitStack() as stack:
            for client in await self._clients(self._watch()):
                await stack.enter_async_context(client)
                try:
                    await client.cancel(self.job)
                except ServiceError as error:
                    # Of several gateways, one may have no part of it.
                    if error.http_status != 404:
                        raise

    def _watch(self) -> GatewayWatch | None:
        if self.cloud is None or self.labels is None or self.gateways is None:
            return None
        return GatewayWatch(partial(_backend, self.cloud), Labels(**self.gateways), Labels(**self.labels))

    async def _clients(self, watch: GatewayWatch | None) -> list[AsyncServiceClient]:
        if self.agent is not None:
            return [AsyncServiceClient(*agent_address(await BaseHook.aget_connection(self.agent)))]
        if watch is None:
            raise ValueError("a JobTrigger waits on an agent or on gateways, and was told of neither")
        return await watch.clients()

    async def _status(self, clients: Sequence[AsyncServiceClient]) -> JobStatus:
        """Of those that know the job. Raises the error of the last one when none does."""
        parts: list[JobStatus] = []
        unknown: ServiceError | None = None
        for client in clients:
            try:
                parts.append(await client.job(self.job))
            except ServiceError as error:
                if error.http_status != 404:
                    raise
                unknown = error
        if not parts and unknown is not None:
            raise unknown
        return merged(parts)

    def _publish(self, status: JobStatus) -> None:
        """For the UI, the REST API and the terminal: where the job stands now."""
        task = self.task_instance
        if task is None or status.progress is None:
            return
        progress = status.progress.model_dump()
        BaseXCom.set(
            key=PROGRESS_KEY,
            value={"job": self.job, "step": status.step, "state": status.state.value, **progress},
            dag_id=task.dag_id,
            task_id=task.task_id,
            run_id=task.run_id,
            map_index=task.map_index if task.map_index is not None else -1,
        )


class ResourceTrigger(WaitTrigger):
    """Waits until none of some cloud resources is pending any more."""

    def __init__(self, cloud: dict[str, Any], kind: str, ids: list[str]) -> None:
        super().__init__()
        self.cloud = cloud
        self.kind = kind
        self.ids = ids

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "operators.triggers.ResourceTrigger",
            {"cloud": self.cloud, "kind": self.kind, "ids": self.ids},
        )

    async def wait(self) -> dict[str, Any]:
        backend = await _backend(self.cloud)
        waiting = list(self.ids)
        while waiting:
            await asyncio.sleep(backend.capabilities().poll_seconds)
            try:
                now = [await asyncio.to_thread(backend.get, Kind(self.kind), each) for each in waiting]
            except BackendError as error:
                # The step looks for itself and reports what is wrong, with the task's own retries.
                self.log.warning("%s", error)
                break
            waiting = [resource.id for resource in now if resource.state is State.PENDING]
        return {"kind": self.kind, "ids": self.ids}


class BootTrigger(WaitTrigger):
    """Watches an instance boot until every check holds, it is beyond hope, or the time is over."""

    def __init__(
        self, cloud: dict[str, Any], instance: str, address: str, checks: list[dict[str, Any]], seconds: float
    ) -> None:
        super().__init__()
        self.cloud = cloud
        self.instance = instance
        self.address = address
        self.checks = checks
        self.seconds = seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "operators.triggers.BootTrigger",
            {
                "cloud": self.cloud,
                "instance": self.instance,
                "address": self.address,
                "checks": self.checks,
                "seconds": self.seconds,
            },
        )

    async def wait(self) -> dict[str, Any]:
        backend = await _backend(self.cloud)
        checks = [Check.model_validate(check) for check in self.checks]
        deadline = time.monotonic() + self.seconds
        while time.monotonic() < deadline:
            try:
                console = await asyncio.to_thread(backend.console, self.instance)
                outcome: CheckOutcome = await asyncio.to_thread(evaluate, checks, console, self.address)
                stopped = (await asyncio.to_thread(backend.get, Kind.INSTANCE, self.instance)).state is State.STOPPED
            except BackendError as error:
                self.log.warning("%s", error)
            else:
                if outcome.passed or outcome.hopeless or stopped:
                    break
            await asyncio.sleep(backend.capabilities().poll_seconds)
        return {"instance": self.instance, "watched": True}
