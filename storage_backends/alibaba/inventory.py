"""What there is in an Alibaba Cloud account: found by id or by tags, waited for, or made once if it is not there."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from alibabacloud_ecs20140526 import models

from storage_backends.alibaba import resources as parse
from storage_backends.alibaba.ecs import EcsApi
from storage_backends.base import Kind, Labels, Resource, State
from storage_backends.errors import NotFound, TokenUsed, Unavailable

_SETTLE_SECONDS = 300.0
_APPEAR_SECONDS = 5.0
_PAGE = 100
_ATTEMPTS = 12


@dataclass(frozen=True)
class _Listing:
    """How ECS lists one kind: the call, the name of its id filter, and where the answer has the items."""

    action: str
    request: Any
    tag: Any
    ids: str
    items: tuple[str, str]
    read: Callable[[dict[str, Any]], Resource]
    more: Mapping[str, str]
    # Of a search by tags only.
    tagged: Mapping[str, object] = field(default_factory=dict)


_LISTINGS = {
    Kind.VOLUME: _Listing(
        "describe_disks",
        models.DescribeDisksRequest,
        models.DescribeDisksRequestTag,
        "disk_ids",
        ("Disks", "Disk"),
        parse.volume,
        {},
        # An instance's own disks carry its tags, and come and go with it.
        {"delete_with_instance": False},
    ),
    Kind.SNAPSHOT: _Listing(
        "describe_snapshots",
        models.DescribeSnapshotsRequest,
        models.DescribeSnapshotsRequestTag,
        "snapshot_ids",
        ("Snapshots", "Snapshot"),
        parse.snapshot,
        {},
    ),
    Kind.IMAGE: _Listing(
        "describe_images",
        models.DescribeImagesRequest,
        models.DescribeImagesRequestTag,
        "image_id",
        ("Images", "Image"),
        parse.image,
        # Without a status only the finished ones are told.
        {"status": "Creating,Waiting,Available,UnAvailable,CreateFailed", "image_owner_alias": "self"},
    ),
    Kind.INSTANCE: _Listing(
        "describe_instances",
        models.DescribeInstancesRequest,
        models.DescribeInstancesRequestTag,
        "instance_ids",
        ("Instances", "Instance"),
        parse.instance,
        {},
    ),
}


class Inventory:
    """Reads one region of an account. Everything raises BackendError."""

    def __init__(self, api: EcsApi, region: str, poll_seconds: float) -> None:
        self._api = api
        self._region = region
        self._poll_seconds = poll_seconds

    def get(self, kind: Kind, resource_id: str) -> Resource:
        """Raises NotFound."""
        # DescribeImages takes plain ids, the other calls a JSON list.
        wanted = resource_id if kind is Kind.IMAGE else json.dumps([resource_id])
        for found in self._describe(kind, {_LISTINGS[kind].ids: wanted}):
            return found
        raise NotFound(
            f"{kind.value.capitalize()} {resource_id} does not exist.",
            "It may have been deleted by hand.",
        )

    def list(self, labels: Labels, kind: Kind | None = None) -> list[Resource]:
        """Everything that carries all of these labels."""
        kinds = [kind] if kind else list(Kind)
        return [
            resource
            for each in kinds
            for resource in self._describe(each, {"tag": tagged(_LISTINGS[each].tag, labels), **_LISTINGS[each].tagged})
        ]

    def once(self, kind: Kind, labels: Labels, create: Callable[[str, str], str]) -> Resource:
        """Find what these labels name, or make it with a token and name that nothing which failed has.

        `create` takes token and name and returns the id. A token may answer with something long deleted, or be one
        of an order with other values: then the next.
        """
        usable, failed = self._named(kind, labels)
        if usable:
            return usable
        for attempt in range(failed, failed + _ATTEMPTS):
            # From the tags, not from the name: `a-b`, `c` and `a`, `b-c` have one name.
            token = client_token(kind, labels.tags(), attempt)
            name = f"{labels.name()}-{attempt + 1}" if attempt else labels.name()
            # NotFound of the order itself is about what it names: a snapshot, a vSwitch.
            try:
                resource_id = create(token, name)
            except TokenUsed:
                # Whoever ordered it may have been killed a moment ago, and the lists may lag behind.
                if made := self._appearing(kind, labels):
                    return made
                continue
            try:
                made = self.until(kind, resource_id, lambda _: True, "listed", _APPEAR_SECONDS)
            except NotFound:
                continue
            if made.state is not State.FAILED:
                return made
        raise Unavailable(f"The cloud made no usable {kind.value} {labels.name()}.", "Try again later.")

    def _named(self, kind: Kind, labels: Labels) -> tuple[Resource | None, int]:
        """What these labels name and can be used, and how many that failed have them too."""
        found = self.list(labels, kind)
        usable = [each for each in found if each.state is not State.FAILED]
        return min(usable, key=lambda each: each.id, default=None), len(found) - len(usable)

    def _appearing(self, kind: Kind, labels: Labels) -> Resource | None:
        deadline = time.monotonic() + _APPEAR_SECONDS
        while (usable := self._named(kind, labels)[0]) is None and time.monotonic() < deadline:
            time.sleep(min(0.5, self._poll_seconds))
        return usable

    def settled(self, resource: Resource) -> Resource:
        """The resource once it is not pending any more."""
        return self.until(resource.kind, resource.id, lambda now: now.state is not State.PENDING, "ready")

    def until(
        self,
        kind: Kind,
        resource_id: str,
        reached: Callable[[Resource], bool],
        wanted: str,
        seconds: float | None = None,
    ) -> Resource:
        """Poll until `reached`; a thing just made may not be listed yet, so only what stays away is NotFound."""
        seconds = _SETTLE_SECONDS if seconds is None else seconds
        deadline = time.monotonic() + seconds
        pause = 0.2
        seen = time.monotonic()
        while True:
            try:
                now = self.get(kind, resource_id)
                if reached(now):
                    return now
                status, seen = now.status, time.monotonic()
            except NotFound:
                if time.monotonic() > min(deadline, seen + _APPEAR_SECONDS):
                    raise
                status = "not listed"
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{kind.value.capitalize()} {resource_id} was not {wanted} within {seconds:.0f} s ({status}).",
                    "Look at it in the cloud's console; the task may simply be retried.",
                )
            time.sleep(pause)
            pause = min(pause * 1.5, self._poll_seconds)

    def becomes(self, kind: Kind, resource_id: str, reached: Callable[[Resource], bool]) -> bool:
        """Is it so, or does it turn out so once the lists have caught up with the latest changes?"""
        try:
            self.until(kind, resource_id, reached, "as expected", _APPEAR_SECONDS)
        except (NotFound, Unavailable):
            return False
        return True

    def being_made_from(self, snapshot_id: str) -> bool:
        """Is a volume being made from that snapshot?"""
        made = self._describe(Kind.VOLUME, {"snapshot_id": snapshot_id})
        return any(volume.status == "Creating" for volume in made)

    def security_group(self, id_or_name: str) -> str:
        """Its id. Raises NotFound."""
        by_id = id_or_name.startswith("sg-")
        request = models.DescribeSecurityGroupsRequest(
            region_id=self._region,
            security_group_id=id_or_name if by_id else None,
            security_group_name=None if by_id else id_or_name,
        )
        groups = self._api.call("describe_security_groups", request)["SecurityGroups"]["SecurityGroup"]
        if not groups:
            raise NotFound(
                f"Security group {id_or_name} does not exist in {self._region}.",
                "Create it, or name another one in the manifest or connection.",
            )
        return str(groups[0]["SecurityGroupId"])

    def _describe(self, kind: Kind, filters: Mapping[str, Any]) -> Iterator[Resource]:
        listing = _LISTINGS[kind]
        page = 1
        while True:
            request = listing.request(
                region_id=self._region, page_number=page, page_size=_PAGE, **listing.more, **filters
            )
            body = self._api.call(listing.action, request)
            outer, inner = listing.items
            yield from map(listing.read, body[outer][inner])
            if page * _PAGE >= int(body.get("TotalCount", 0)):
                return
            page += 1


def client_token(*named: object) -> str:
    """64 characters: the same for what is named the same, whoever asks and however often."""
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def tagged(model: Any, labels: Labels) -> Any:
    """The labels as the tag values of a request."""
    return [model(key=key, value=value) for key, value in labels.tags().items()]
