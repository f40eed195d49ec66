"""One VPC with a vSwitch per zone, and security groups, which decide what ports lead to an instance."""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence

from wavelift.localcloud.entities import DEFAULT_GROUP, VPC, Instance, Rule, SecurityGroup, new_id
from wavelift.localcloud.errors import ApiError, not_found
from wavelift.localcloud.model import quotas
from wavelift.localcloud.model.context import Context, find, instance_lock
from wavelift.localcloud.runtimes.base import RuntimeFailure
from wavelift.localcloud.runtimes.processes import alive
from wavelift.localcloud.runtimes.qmp import QmpError
from wavelift.localcloud.states import InstanceStatus
from wavelift.localcloud.store import Token, Transaction

LOG = logging.getLogger(__name__)

# Forwarding costs a listening socket per port: a wider range is not expanded (its ports authorised one by one are
# forwarded all the same), and there is an end to how many ports one machine has.
WIDEST_RANGE = 64
MOST_PORTS = 256
MOST_RULES = 200
FIRST_RULES = ("22/22", "3389/3389")


class Network:
    def __init__(self, context: Context) -> None:
        self._context = context

    def seed(self, tx: Transaction) -> None:
        if tx.get(SecurityGroup, DEFAULT_GROUP) is None:
            rules = [Rule(protocol="TCP", ports=p, source="0.0.0.0/0", created=time.time()) for p in FIRST_RULES]
            tx.put(SecurityGroup(id=DEFAULT_GROUP, created=time.time(), name="default", rules=rules))

    def create_group(self, vpc: str, name: str, description: str, tags: dict[str, str], token: Token | None) -> str:
        if vpc != VPC:
            raise not_found("VpcId", vpc)
        with self._context.store.transaction() as tx:
            if (known := tx.recall(token)) is not None:
                return known
            quotas.check(tx, self._context.options.quotas, SecurityGroup)
            group = SecurityGroup(
                id=new_id(SecurityGroup.prefix), created=time.time(), name=name, description=description, tags=tags
            )
            tx.put(group)
            tx.remember(token, group.id)
            return group.id

    def modify_group(self, identifier: str, name: str | None, description: str | None) -> None:
        with self._context.store.transaction() as tx:
            group = find(tx, SecurityGroup, identifier)
            group.name = name if name is not None else group.name
            group.description = description if description is not None else group.description
            tx.put(group)

    def groups(self) -> list[SecurityGroup]:
        with self._context.store.transaction() as tx:
            return tx.look(SecurityGroup)

    def group(self, identifier: str) -> SecurityGroup:
        with self._context.store.transaction() as tx:
            return find(tx, SecurityGroup, identifier)

    def users(self) -> dict[str, int]:
        """How many instances each group has."""
        counts: dict[str, int] = {}
        with self._context.store.transaction() as tx:
            for instance in tx.look(Instance):
                for group in instance.groups:
                    counts[group] = counts.get(group, 0) + 1
        return counts

    def authorize(self, identifier: str, rules: Sequence[Rule]) -> None:
        """Takes effect on running machines before it returns. A rule that is there already changes nothing."""

        def add(tx: Transaction, group: SecurityGroup) -> None:
            for rule in rules:
                if rule.source.startswith(SecurityGroup.prefix):
                    find(tx, SecurityGroup, rule.source)
            known = {_identity(rule) for rule in group.rules}
            group.rules += [rule for rule in rules if _identity(rule) not in known]
            if len(group.rules) > MOST_RULES:
                raise ApiError("AuthorizationLimitExceed", f"A security group has at most {MOST_RULES} rules.")

        self._change(identifier, add)

    def revoke(self, identifier: str, rules: Sequence[Rule], ids: Collection[str]) -> None:
        """One that is not there is no error. Connections that are open stay."""

        def remove(tx: Transaction, group: SecurityGroup) -> None:
            gone = {_identity(rule) for rule in rules}
            group.rules = [rule for rule in group.rules if _identity(rule) not in gone and rule.id not in ids]

        self._change(identifier, remove)

    def _change(self, identifier: str, change: Callable[[Transaction, SecurityGroup], None]) -> None:
        with self._context.store.transaction() as tx:
            group = find(tx, SecurityGroup, identifier)
            members = [i for i in tx.look(Instance) if identifier in i.groups and i.status is InstanceStatus.RUNNING]
            before = {member.id: set(open_ports(tx, member.groups)) for member in members}
            change(tx, group)
            tx.put(group)
            after = {member.id: set(open_ports(tx, member.groups)) for member in members}
        for member in members:
            for port in sorted(before[member.id] - after[member.id]):
                self._turn(member, port, False)
            for port in sorted(after[member.id] - before[member.id]):
                self._turn(member, port, True)

    def _turn(self, member: Instance, port: int, opened: bool) -> None:
        with self._context.locks.hold(instance_lock(member.id)):
            if alive(member.pid, member.ticks):
                runtime = self._context.runtime(member)
                try:
                    (runtime.open_port if opened else runtime.close_port)(member, port)
                except (OSError, QmpError, RuntimeFailure):
                    LOG.exception("port %d of %s stays as it is until the instance starts again", port, member.id)

    def delete_group(self, identifier: str) -> None:
        with self._context.store.transaction() as tx:
            group = find(tx, SecurityGroup, identifier)
            if any(identifier in instance.groups for instance in tx.look(Instance)):
                raise ApiError("DependencyViolation", "There is still instance(s) in the specified security group.")
            others = [other for other in tx.look(SecurityGroup) if other.id != identifier]
            if any(rule.source == identifier for other in others for rule in other.rules):
                raise ApiError("DependencyViolation", "Rules of other security groups name the specified one.")
            tx.remove(group)


def _identity(rule: Rule) -> tuple[str, str, str, str]:
    return rule.protocol, rule.ports, rule.source, rule.policy


def open_ports(tx: Transaction, groups: Iterable[str]) -> list[int]:
    """The TCP ports that are forwarded to members of these groups."""
    return forwarded(rule for name in groups for rule in find(tx, SecurityGroup, name).rules)


def forwarded(rules: Iterable[Rule]) -> list[int]:
    ports: set[int] = set()
    for rule in rules:
        first, last = rule.span()
        if rule.protocol in {"TCP", "ALL"} and rule.policy == "Accept" and last - first < WIDEST_RANGE:
            ports.update(range(first, last + 1))
    return sorted(ports)[:MOST_PORTS]
