"""The rules in force: whose turn it is, how often each was asked, and what was injected."""

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from wavelift.localcloud.faults.kinds import Point, Stale
from wavelift.localcloud.faults.rules import Call, Rule

LOG = logging.getLogger(__name__)

LOG_LENGTH = 10_000


class UnknownRule(Exception):
    """No rule has this id."""


class KnownRule(Exception):
    """A rule has this id already."""


@dataclass(frozen=True)
class Injected:
    """One fault that happened; numbers go on counting when the oldest entries of the log are gone."""

    number: int
    time: float
    rule: str
    kind: str
    service: str
    action: str
    resource: str
    request_id: str


@dataclass(frozen=True)
class Counter:
    """How many calls a rule selected that its fault can spoil, and how many it spoiled."""

    selected: int = 0
    injected: int = 0


class Book:
    """Safe in threads. Without rules nobody pays: `active` is a plain attribute."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.active = False
        # Told how far back reads may lag from now on: somebody has to remember that long.
        self.remember: Callable[[float], None] = lambda seconds: None
        self._lock = threading.Lock()
        self._at_start = list(rules)
        self._rules: dict[str, Rule] = {}
        self._counters: dict[str, Counter] = {}
        self._log: deque[Injected] = deque(maxlen=LOG_LENGTH)
        self._numbers = itertools.count(1)
        self._names = itertools.count(1)
        self.reset()

    def reset(self) -> None:
        """As at the start: the rules of then, nothing counted, nothing logged."""
        with self._lock:
            self._rules, self._counters = {}, {}
            self._log.clear()
            self._numbers, self._names = itertools.count(1), itertools.count(1)
            for rule in self._at_start:
                self._put(rule)
        self._changed()

    def add(self, rules: Iterable[Rule]) -> list[Rule]:
        """All or none, each with its id. Raises KnownRule."""
        wanted = list(rules)
        with self._lock:
            names = [rule.id for rule in wanted if rule.id]
            for name in names:
                if name in self._rules or names.count(name) > 1:
                    raise KnownRule(name)
            added = [self._put(rule) for rule in wanted]
        self._changed()
        return added

    def replace(self, name: str, rule: Rule) -> Rule:
        """In its place among the others, counted from zero. Raises UnknownRule."""
        with self._lock:
            if name not in self._rules:
                raise UnknownRule(name)
            put = self._put(rule.model_copy(update={"id": name}))
        self._changed()
        return put

    def remove(self, name: str) -> None:
        """What it injected stays in the log. Raises UnknownRule."""
        with self._lock:
            if name not in self._rules:
                raise UnknownRule(name)
            del self._rules[name], self._counters[name]
        self._changed()

    def clear(self) -> None:
        """Remove every rule."""
        with self._lock:
            self._rules, self._counters = {}, {}
        self._changed()

    def rules(self) -> list[tuple[Rule, Counter]]:
        with self._lock:
            return [(rule, self._counters[name]) for name, rule in self._rules.items()]

    def counter(self, name: str) -> Counter:
        """Raises UnknownRule."""
        with self._lock:
            if name not in self._counters:
                raise UnknownRule(name)
            return self._counters[name]

    def log(self, rule: str | None = None) -> list[Injected]:
        """Oldest first."""
        with self._lock:
            return [entry for entry in self._log if rule in {None, entry.rule}]

    def take(self, point: Point, call: Call, possible: Callable[[Rule], bool] = lambda rule: True) -> list[Rule]:
        """The rules whose turn it is, counted and logged. `possible`: can the rule's fault spoil this call?"""
        with self._lock:
            rules = list(self._rules.values())
        able = [r for r in rules if r.fault.point == point and r.selects(call) and possible(r)]
        if not able:
            return []
        with self._lock:
            winners = self._winners([rule for rule in able if self._rules.get(rule.id) is rule])
            for rule in winners:
                counter = self._counters[rule.id]
                self._counters[rule.id] = replace(counter, injected=counter.injected + 1)
                self._log.append(entry := self._injected(rule, call))
                LOG.info(
                    "fault %d by rule %s: %s in %s %s", entry.number, rule.id, entry.kind, call.service, call.action
                )
        return winners

    def _winners(self, rules: list[Rule]) -> list[Rule]:
        """Every rule counts the call; of each slot the first rule whose turn it is wins."""
        slots: dict[str, Rule] = {}
        for rule in rules:
            counter = self._counters[rule.id]
            self._counters[rule.id] = counter = replace(counter, selected=counter.selected + 1)
            spent = rule.times is not None and counter.injected >= rule.times
            if not spent and rule.due(counter.selected):
                slots.setdefault(rule.fault.slot, rule)
        if "outcome" in slots:
            slots.pop("lag", None)  # there will be no reading
        return list(slots.values())

    def _injected(self, rule: Rule, call: Call) -> Injected:
        return Injected(
            number=next(self._numbers),
            time=time.time(),
            rule=rule.id,
            kind=rule.fault.kind,
            service=call.service,
            action=call.action,
            resource=call.resources[0] if call.resources else "",
            request_id=call.request_id,
        )

    def _put(self, rule: Rule) -> Rule:
        if not rule.id:
            # Never one that an entry of the log may name already.
            free = next(name for n in self._names if (name := f"rule-{n}") not in self._rules)
            rule = rule.model_copy(update={"id": free})
        self._rules[rule.id] = rule
        self._counters[rule.id] = Counter()
        return rule

    def _changed(self) -> None:
        with self._lock:
            faults = [rule.fault for rule in self._rules.values()]
        self.active = bool(faults)
        self.remember(max((fault.seconds for fault in faults if isinstance(fault, Stale)), default=0.0))
