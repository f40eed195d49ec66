"""Commands on instances: sent, watched to their end, stopped.

Each execution is watched by a thread of its own while it runs. Everything it knows is in the store, so the next start
of the cloud takes up what was under way: a command that may have been begun is never begun again.
"""

import base64
import logging
import sqlite3
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from wavelift.localcloud.entities import Execution, Instance, Invocation, new_id
from wavelift.localcloud.errors import ApiError
from wavelift.localcloud.model.context import Context
from wavelift.localcloud.runtimes.agents import (
    AgentError,
    Ended,
    Interrupted,
    NoAnswer,
    NoFolder,
    NotRunning,
    Refused,
    Script,
)
from wavelift.localcloud.states import InstanceStatus
from wavelift.localcloud.store import Token

LOG = logging.getLogger(__name__)

POLL_SECONDS = 0.2
LOST_SECONDS = 30.0
GIVE_UP_SECONDS = 5.0
# How an execution ends when its agent has this to say: status and error code.
ENDS: dict[type[AgentError], tuple[str, str]] = {
    NotRunning: ("Aborted", "ClientNotRunning"),
    NoAnswer: ("Aborted", "ClientNotResponse"),
    NoFolder: ("Invalid", "DirectoryNotExists"),
    Interrupted: ("Error", "ExecutionInterrupted"),
    Refused: ("Error", "ExecutionException"),
}
ENDED = frozenset({"Success", "Failed", "Timeout", "Error", "Aborted", "Invalid", "Terminated", "Cancelled"})


@dataclass(frozen=True)
class CommandOrder:
    content: str
    instances: Sequence[str]
    name: str = ""
    description: str = ""
    working_dir: str = ""
    timeout: int = 60


class Commands:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._stopping = threading.Event()
        self._guard = threading.Lock()
        self._watching: set[threading.Thread] = set()

    def run(self, order: CommandOrder, token: Token | None) -> Invocation:
        with self._context.store.transaction() as tx:
            if (known := tx.recall(token)) is not None:
                return self._found(known, tx.get(Invocation, known))
            for identifier in order.instances:
                if tx.get(Instance, identifier) is None:
                    raise ApiError("InvalidInstance.NotFound", "The specified instance does not exist.")
            invocation = Invocation(
                id=new_id(Invocation.prefix),
                created=time.time(),
                command=new_id("c-"),
                name=order.name,
                description=order.description,
                content=order.content,
                timeout=order.timeout,
                working_dir=order.working_dir,
                executions=[Execution(instance=identifier) for identifier in order.instances],
            )
            tx.put(invocation)
            tx.remember(token, invocation.id)
            tx.after_commit.append(lambda: self._watch(invocation))
            return invocation

    def _watch(self, invocation: Invocation) -> None:
        for execution in invocation.executions:
            if execution.status not in ENDED:
                self._begin_watching(invocation.id, execution.instance)

    def _begin_watching(self, identifier: str, instance_id: str) -> None:
        """No pool: a command runs as long as it likes, and none waits until others have ended."""
        thread = threading.Thread(
            target=self._follow, args=(identifier, instance_id), name="localcloud-command", daemon=True
        )
        with self._guard:
            if not self._stopping.is_set():
                self._watching.add(thread)
                thread.start()

    def recover(self) -> None:
        with self._context.store.transaction() as tx:
            invocations = tx.all(Invocation)
        for invocation in invocations:
            self._watch(invocation)

    def close(self) -> None:
        """Ends no command: the next start takes them up."""
        with self._guard:
            self._stopping.set()
            watching = list(self._watching)
        for thread in watching:
            thread.join()

    def _follow(self, identifier: str, instance_id: str) -> None:
        try:
            self._begin_and_look(identifier, instance_id)
        except Exception:
            LOG.exception("%s on %s cannot be watched any longer", identifier, instance_id)
            self._give_up(identifier, instance_id)
        finally:
            with self._guard:
                self._watching.discard(threading.current_thread())

    def _give_up(self, identifier: str, instance_id: str) -> None:
        """What fails may be the store too (a full disk): noted as soon as it can be."""
        while True:
            try:
                self._end(identifier, instance_id, "Error", "ExecutionException")
            except sqlite3.Error:
                LOG.exception("the end of %s on %s cannot be noted", identifier, instance_id)
            else:
                return
            if self._stopping.wait(GIVE_UP_SECONDS):
                return

    def _begin_and_look(self, identifier: str, instance_id: str) -> None:
        invocation, execution = self._read(identifier, instance_id)
        with self._context.store.transaction() as tx:
            instance = tx.get(Instance, instance_id)
        if instance is None:
            self._end(identifier, instance_id, "Aborted", "InstanceReleased")
            return
        agent = self._context.runtime(instance).agent
        name = f"{identifier}-{instance_id}"
        if execution.status == "Pending":
            if execution.stopping:
                self._end(identifier, instance_id, "Cancelled", "")
                return
            if instance.status is not InstanceStatus.RUNNING:
                self._end(identifier, instance_id, "Aborted", "InstanceNotRunning")
                return
            try:
                agent.greet(instance)
                self._note(identifier, instance_id, status="Running", started=time.time())
                pid, ticks = agent.begin(instance, name, Script(invocation.content, invocation.working_dir))
            except AgentError as error:
                self._end(identifier, instance_id, *ENDS[type(error)])
                return
            execution = self._note(identifier, instance_id, pid=pid, ticks=ticks)
        self._look_until_ended(invocation, execution, instance, name)

    def _look_until_ended(self, invocation: Invocation, execution: Execution, instance: Instance, name: str) -> None:
        agent = self._context.runtime(instance).agent
        process = execution.pid, execution.ticks
        ending, heard = "", time.time()
        while not self._stopping.wait(POLL_SECONDS):
            try:
                if execution.pid == 0:
                    raise Interrupted("nobody knows whether it was begun")
                if not ending and self._read(invocation.id, instance.id)[1].stopping:
                    agent.end(instance, name, process)
                    ending = "Terminated"
                elif not ending and time.time() > execution.started + invocation.timeout:
                    agent.end(instance, name, process)
                    ending = "Timeout"
                ended = agent.look(instance, name, process)
                heard = time.time()
            except (NotRunning, NoAnswer) as error:
                # The instance may be frozen for a snapshot, or reboot; an agent that stays away is lost.
                if time.time() < heard + LOST_SECONDS and self._runs(instance.id):
                    continue
                self._end(invocation.id, instance.id, *ENDS[type(error)])
                return
            except AgentError as error:
                # One that was interrupted was ended by us, or by somebody else.
                self._end(invocation.id, instance.id, *((ending, "") if ending else ENDS[type(error)]))
                return
            if ended is not None:
                self._finish(invocation.id, instance.id, ended, ending)
                return

    def _runs(self, instance_id: str) -> bool:
        with self._context.store.transaction() as tx:
            instance = tx.get(Instance, instance_id)
        return instance is not None and instance.status is InstanceStatus.RUNNING

    def _finish(self, identifier: str, instance_id: str, ended: Ended, ending: str) -> None:
        output = {"output": base64.b64encode(ended.output).decode(), "dropped": ended.dropped}
        if ending:
            self._end(identifier, instance_id, ending, "", **output)
        elif ended.exit_code:
            self._end(identifier, instance_id, "Failed", "ExitCodeNonzero", exit_code=ended.exit_code, **output)
        else:
            self._end(identifier, instance_id, "Success", "", exit_code=0, **output)

    def _end(self, identifier: str, instance_id: str, status: str, error: str, **more: object) -> None:
        now = time.time()
        if status == "Timeout":
            error = "ExecutionTimeout"
        if status in {"Terminated", "Cancelled"}:
            more["stopped"] = now
        self._note(identifier, instance_id, status=status, error=error, finished=now, **more)

    def _note(self, identifier: str, instance_id: str, **changes: object) -> Execution:
        with self._context.store.transaction() as tx:
            invocation = self._found(identifier, tx.get(Invocation, identifier))
            execution = _on(invocation, instance_id)
            for field, value in changes.items():
                setattr(execution, field, value)
            tx.put(invocation)
        return execution

    def _read(self, identifier: str, instance_id: str) -> tuple[Invocation, Execution]:
        with self._context.store.transaction() as tx:
            invocation = self._found(identifier, tx.get(Invocation, identifier))
        return invocation, _on(invocation, instance_id)

    @staticmethod
    def _found(identifier: str, invocation: Invocation | None) -> Invocation:
        if invocation is None:
            raise ApiError("InvalidInvokeId.NotFound", f"The command execution {identifier} does not exist.")
        return invocation

    def stop(self, identifier: str, instances: Sequence[str]) -> None:
        """What has not begun never does; what runs is ended. Without instances: on all of them."""
        with self._context.store.transaction() as tx:
            invocation = self._found(identifier, tx.get(Invocation, identifier))
            known = {execution.instance for execution in invocation.executions}
            if not known.issuperset(instances):
                raise ApiError("InvalidInstance.NotFound", "The command was not sent to the specified instance.")
            for execution in invocation.executions:
                if execution.status not in ENDED and (not instances or execution.instance in instances):
                    execution.stopping = True
            tx.put(invocation)

    def all(self) -> list[Invocation]:
        """The latest first, as ECS lists them."""
        with self._context.store.transaction() as tx:
            return tx.all(Invocation)[::-1]

    def _answers(self, instance: Instance) -> bool:
        try:
            self._context.runtime(instance).agent.greet(instance)
        except AgentError:
            return False
        return True

    def reachable(self, instances: Sequence[Instance]) -> dict[str, bool]:
        """In which of these an agent answers."""
        running = [i for i in instances if i.status is InstanceStatus.RUNNING]
        # Not the pool of the commands: that one may be busy for as long as they run.
        with ThreadPoolExecutor(max_workers=16) as pool:
            answers = pool.map(self._answers, running)
        return {i.id: False for i in instances} | {i.id: answer for i, answer in zip(running, answers, strict=True)}


def _on(invocation: Invocation, instance_id: str) -> Execution:
    return next(execution for execution in invocation.executions if execution.instance == instance_id)
