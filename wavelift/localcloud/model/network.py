"""One VPC with a vSwitch per zone, and security groups, which decide what ports lead to an instance."""

import logging
import time
from collections.abc import Iterable, Sequence

from wavelift.localcloud.entities import DEFAULT_GROUP, VPC, Instance, Rule, SecurityGroup, new_id
from wavelift.localcloud.errors import forbidden, not_found
from wavelift.localcloud.model.context import Context, find, instance_lock
from wavelift.localcloud.runtimes.base import RuntimeFailure
from wavelift.localcloud.runtimes.processes import alive
from wavelift.localcloud.runtimes.qmp import QmpError
from wavelift.localcloud.states import InstanceStatus
from wavelift.localcloud.store import Transaction

LOG = logging.getLogger(__name__)

# Forwarding costs a listening socket per port: a wider range is not expanded (its ports authorised one by one are
# forwarded all the same), and there is an end to how many ports one machine has.
WIDEST_RANGE = 64
MOST_PORTS = 256
FIRST_RULES = ("22/22", "3389/3389")


class Network:
    def __init__(self, context: Context) -> None:
        self._context = context

    def seed(self, tx: Transaction) -> None:
        if tx.get(SecurityGroup, DEFAULT_GROUP) is None:
            rules = [Rule(protocol="TCP", ports=p, source="0.0.0.0/0", created=time.time()) for p in FIRST_RULES]
            tx.put(SecurityGroup(id=DEFAULT_GROUP, created=time.time(), name="default", rules=rules))

    def create_group(self, vpc: str, name: str, description: str, tags: dict[str, str]) -> str:
        if vpc != VPC:
            raise not_found("VpcId", vpc)
        group = SecurityGroup(
            id=new_id(SecurityGroup.prefix), created=time.time(), name=name, description=description, tags=tags
        )
        with self._context.store.transaction() as tx:
            tx.put(group)
        return group.id

    def groups(self) -> list[SecurityGroup]:
        with self._context.store.transaction() as tx:
            return tx.all(SecurityGroup)

    def group(self, identifier: str) -> SecurityGroup:
        with self._context.store.transaction() as tx:
            return find(tx, SecurityGroup, identifier)

    def users(self) -> dict[str, int]:
        """How many instances each group has."""
        counts: dict[str, int] = {}
        with self._context.store.transaction() as tx:
            for instance in tx.all(Instance):
                for group in instance.groups:
                    counts[group] = counts.get(group, 0) + 1
        return counts

    def authorize(self, identifier: str, rules: Sequence[Rule]) -> None:
        """Takes effect on running machines before it returns. A rule that is there already changes nothing."""
        with self._context.store.transaction() as tx:
            group = find(tx, SecurityGroup, identifier)
            members = [i for i in tx.all(Instance) if identifier in i.groups and i.status is InstanceStatus.RUNNING]
            before = {member.id: open_ports(tx, member.groups) for member in members}
            known = {(r.protocol, r.ports, r.source, r.policy) for r in group.rules}
            group.rules += [r for r in rules if (r.protocol, r.ports, r.source, r.policy) not in known]
            tx.put(group)
            after = {member.id: open_ports(tx, member.groups) for member in members}
        for member in members:
            for port in sorted(set(after[member.id]) - set(before[member.id])):
                self._open(member, port)

    def _open(self, member: Instance, port: int) -> None:
        with self._context.locks.hold(instance_lock(member.id)):
            if alive(member.pid, member.ticks):
                try:
                    self._context.runtime(member).open_port(member, port)
                except (OSError, QmpError, RuntimeFailure):
                    LOG.exception("port %d of %s stays closed until the instance starts again", port, member.id)

    def delete_group(self, identifier: str) -> None:
        with self._context.store.transaction() as tx:
            group = find(tx, SecurityGroup, identifier)
            if any(identifier in instance.groups for instance in tx.all(Instance)):
                raise forbidden("DependencyViolation", "There is still instance(s) in the specified security group.")
            tx.remove(group)


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
