"""Tags on any resource."""

from collections.abc import Sequence

from wavelift.localcloud.entities import Disk, Entity, Image, Instance, SecurityGroup, Snapshot
from wavelift.localcloud.errors import ApiError
from wavelift.localcloud.model.context import Context
from wavelift.localcloud.store import Transaction

KINDS: dict[str, type[Entity]] = {kind.kind: kind for kind in (Disk, Snapshot, Image, Instance, SecurityGroup)}
LIMIT = 20


class Tags:
    def __init__(self, context: Context) -> None:
        self._context = context

    def add(self, kind: str, identifiers: Sequence[str], tags: dict[str, str]) -> None:
        with self._context.store.transaction() as tx:
            for entity in self._find(tx, kind, identifiers):
                entity.tags |= tags
                if len(entity.tags) > LIMIT:
                    raise ApiError("OperationDenied.QuotaExceed", f"A resource has at most {LIMIT} tags.")
                tx.put(entity)

    def remove(self, kind: str, identifiers: Sequence[str], keys: Sequence[str], everything: bool) -> None:
        with self._context.store.transaction() as tx:
            for entity in self._find(tx, kind, identifiers):
                gone = set(entity.tags) if everything and not keys else set(keys)
                entity.tags = {key: value for key, value in entity.tags.items() if key not in gone}
                tx.put(entity)

    def list(self, kind: str, identifiers: Sequence[str], wanted: dict[str, str | None]) -> list[Entity]:
        with self._context.store.transaction() as tx:
            entities = tx.look(_kind(kind))
        return [
            entity
            for entity in entities
            if (not identifiers or entity.id in identifiers) and matches(entity.tags, wanted)
        ]

    @staticmethod
    def _find(tx: Transaction, kind: str, identifiers: Sequence[str]) -> Sequence[Entity]:
        found = []
        for identifier in identifiers:
            entity = tx.get(_kind(kind), identifier)
            if entity is None:
                raise ApiError("InvalidResourceId.NotFound", f"The resource {identifier} does not exist.")
            found.append(entity)
        return found


def _kind(name: str) -> type[Entity]:
    if name not in KINDS:
        raise ApiError("InvalidResourceType.NotFound", f"The resource type {name!r} does not exist.")
    return KINDS[name]


def matches(tags: dict[str, str], wanted: dict[str, str | None]) -> bool:
    """Every wanted key is there, with the wanted value where one is given."""
    return all(key in tags and (value is None or tags[key] == value) for key, value in wanted.items())
