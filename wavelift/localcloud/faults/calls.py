"""Where faults happen around an action and inside the model. What happens to a connection is in `replies`."""

import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from wavelift.localcloud.faults.book import Book
from wavelift.localcloud.faults.errors import error_of, headers_of
from wavelift.localcloud.faults.history import AS_OF, History
from wavelift.localcloud.faults.kinds import STATES, Delay, DiskFull, FailedTransition, Fault, Stale
from wavelift.localcloud.faults.rules import Call, Rule
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.rpc import resources
from wavelift.localcloud.states import Status

FILES = {"d": "disk", "s": "snapshot"}


class TransitionFailed(Exception):
    """A fault rule lets this passage fail."""


@dataclass
class Exchange:
    """One request, as far as faults have to do with it: filled by the action's side, read by the reply's."""

    call: Call | None = None
    outcome: Fault | None = None
    delay: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)


EXCHANGE: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


class Faults(Book):
    def install(self, cloud: Cloud) -> None:
        """Before the cloud starts."""
        self._history = History(cloud.store)
        self.remember = self._history.remember
        cloud.engine.obstacle = self.transition
        cloud.files.obstacle = self.copy
        self._changed()

    @contextmanager
    def around(self, described: Callable[[], Call]) -> Iterator[None]:
        """Put around the action; raises the ApiError of a fault instead of letting it happen."""
        exchange = EXCHANGE.get()
        if exchange is None:  # no rule was in force when the request came
            yield
            return
        exchange.call = call = described()
        moment = 0.0
        for rule in self.take("request", call, self._possible):
            fault = rule.fault
            if isinstance(fault, Delay):
                exchange.delay = fault.seconds
            elif isinstance(fault, Stale):
                moment = time.monotonic() - fault.seconds
            else:
                exchange.outcome = fault
                exchange.headers = headers_of(fault, call.service)
        if exchange.outcome is not None:
            raise error_of(exchange.outcome, call.service)
        token = AS_OF.set(moment)
        try:
            yield
        finally:
            AS_OF.reset(token)
        for rule in self.take("done", call):
            exchange.outcome = rule.fault

    def around_action(
        self, product: str, action: str, parameters: Mapping[str, str], request_id: str
    ) -> AbstractContextManager[None]:
        """The same for an action of the RPC kind."""
        if product == "Sts":
            return self.around(lambda: Call("sts", action, (), parameters, request_id))
        return self.around(
            lambda: Call("ecs", action, tuple(resources.ids(action, parameters)), parameters, request_id)
        )

    def around_operation(self, operation: str, bucket: str, key: str, request_id: str) -> AbstractContextManager[None]:
        """The same for an operation on a bucket or an object."""
        named = (f"{bucket}/{key}" if key else bucket,) if bucket else ()
        return self.around(lambda: Call("oss", operation, named, request_id=request_id))

    def _possible(self, rule: Rule) -> bool:
        return not isinstance(rule.fault, Stale) or self._history.changed_within(rule.fault.seconds)

    def transition(self, status: Status, identifier: str) -> None:
        """Asked by the engine before the work of a passing state. Raises TransitionFailed."""
        if not self.active:
            return

        def possible(rule: Rule) -> bool:
            fault = rule.fault
            return (
                isinstance(fault, FailedTransition)
                and isinstance(status, STATES[fault.of])
                and status.value == fault.state
            )

        call = Call("ecs", resources=(identifier,))
        for rule in self.take("transition", call, possible):
            raise TransitionFailed(f"{identifier} fails by fault rule {rule.id}")

    def copy(self, name: str) -> None:
        """Asked before the file of a disk or snapshot counts as written. Raises OSError."""
        if not self.active:
            return
        identifier = name.partition(".")[0]  # a disk that is written anew has a second file

        def possible(rule: Rule) -> bool:
            return isinstance(rule.fault, DiskFull) and rule.fault.of == FILES.get(identifier.partition("-")[0])

        if self.take("copy", Call("ecs", resources=(identifier,)), possible):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), identifier)
