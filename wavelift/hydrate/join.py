"""What an increment needs to lie on: content is joined by roots, wherever the generations before it were kept."""

from __future__ import annotations

from collections.abc import Sequence

from wavelift.archive.archive import Archive
from wavelift.archive.errors import ArchiveError
from wavelift.archive.layout import Generation


class NotJoined(ArchiveError):
    """A generation builds on `base`, whose root is `base_root` and which lies elsewhere; the target holds `root`, or
    nothing that is known. Roots in hex."""

    default_code = "base_mismatch"

    def __init__(self, place: str, generation: int, base: int, base_root: str, root: str | None) -> None:
        self.place, self.generation, self.base, self.base_root, self.root = place, generation, base, base_root, root
        holds = "nothing that is known" if root is None else f"the root {root}"
        super().__init__(
            f"Generation {generation} of {place} builds on generation {base} with the root {base_root}, which is not "
            f"kept there, and the target holds {holds}; nothing was written.",
            f"Bring generation {base} there first, from where it is kept.",
        )


def require_joined(archive: Archive, chain: Sequence[Generation], root: str | None) -> None:
    """Raises `NotJoined` unless a target that holds `root`, in hex, or nothing of use, has what the chain has not."""
    last = chain[-1]
    if last.base is None or root in {last.base_root, *(generation.root for generation in chain)}:
        return
    raise NotJoined(archive.name, chain[0].generation, last.base, str(last.base_root), root)
