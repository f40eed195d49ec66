"""A service's state folder, for one service alone: two would run the same jobs, and one clean up behind the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wavelift.holding import InUse, held
from wavelift.service.errors import WaveliftError


class StateInUse(WaveliftError):
    """Another process serves from this `folder`; `who` says which."""

    default_code = "state_in_use"
    status = 409

    def __init__(self, folder: Path, who: str) -> None:
        self.folder, self.who = folder, who
        super().__init__(f"The state {folder} is in use by {who}.", "Stop that one, or give this one another --state.")


@contextmanager
def own_state(folder: Path) -> Iterator[None]:
    """Made if need be. Raises `StateInUse`, OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with held(folder / "lock"):
            yield
    except InUse as error:
        raise StateInUse(folder, error.who) from None
