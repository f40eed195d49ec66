"""Whose packs each volume took last, durably: what a copy has sent counts only while nobody else's came after."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from wavelift.blocks.files import write_durably
from wavelift.blocks.taken import mark_of

Order = tuple[int, int]


@dataclass
class _Owner:
    """`newest`, by migration, are the generation and attempt of its last pack; `last` is whose pack was the last.
    `turns` counts how often a migration came back to content that another wrote over meanwhile."""

    last: str = ""
    newest: dict[str, Order] = field(default_factory=dict)
    turns: dict[str, int] = field(default_factory=dict)


class Owners:
    """One small file a volume; its caller lets one thread in at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, _Owner] = {}

    def take(self, volume: str, migration: str, order: Order) -> None:
        """Durable on return; called before anything of a pack is written. Raises OSError."""
        owner = self._of(volume)
        before = owner.newest.get(migration)
        if owner.last == migration and before == order:
            return
        if before != order:
            owner.turns.pop(migration, None)
        else:
            owner.turns[migration] = owner.turns.get(migration, 0) + 1
        owner.last, owner.newest[migration] = migration, order
        self._keep(volume, owner)

    def wrote_itself(self, volume: str) -> None:
        """The gateway changed what the volume holds. Raises OSError."""
        owner = self._of(volume)
        owner.last = ""
        self._keep(volume, owner)

    def about(self, volume: str) -> tuple[str, int, str]:
        """(migration, generation, mark) of the last pack: nothing else was written while the mark is the same."""
        owner = self._of(volume)
        if not owner.last:
            return "", 0, ""
        generation, attempt = owner.newest[owner.last]
        return owner.last, generation, mark_of(owner.last, generation, attempt, owner.turns.get(owner.last, 0))

    def _of(self, volume: str) -> _Owner:
        name = volume.removeprefix("d-")
        if name not in self._known:
            self._known[name] = self._read(name)
        return self._known[name]

    def _read(self, name: str) -> _Owner:
        try:
            raw = json.loads((self._folder / f"{name}.json").read_text())
        except FileNotFoundError:
            return _Owner()
        newest = {
            migration: (int(generation), int(attempt)) for migration, (generation, attempt) in raw["newest"].items()
        }
        return _Owner(str(raw["last"]), newest, dict(raw["turns"]))

    def _keep(self, volume: str, owner: _Owner) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_durably(self._folder / f"{volume.removeprefix('d-')}.json", json.dumps(asdict(owner)).encode())
