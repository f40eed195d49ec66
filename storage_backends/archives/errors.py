"""Errors of stores and archives as those of a backend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from storage_backends import errors
from wavelift.archive.errors import Damaged, KeyMissing, NoArchive, NoGeneration, NotSealed
from wavelift.blocks.errors import BlockError
from wavelift.stores import base as stores
from wavelift.stores.patience import Busy

# The first that fits counts.
_KINDS: tuple[tuple[type[BlockError], type[errors.BackendError]], ...] = (
    (stores.NotThere, errors.NotFound),
    (stores.AlreadyThere, errors.Conflict),
    (stores.Denied, errors.Denied),
    (stores.Full, errors.QuotaExceeded),
    (stores.Corrupted, errors.Corrupted),
    (Busy, errors.Throttled),
    (stores.Unavailable, errors.Unavailable),
    (NoArchive, errors.NotFound),
    (NoGeneration, errors.NotFound),
    (Damaged, errors.Corrupted),
    (KeyMissing, errors.Denied),
    (NotSealed, errors.Denied),
)


@contextmanager
def translated() -> Iterator[None]:
    """Around what a backend does with a store or an archive; also a decorator."""
    try:
        yield
    except BlockError as error:
        kind = next((made for found, made in _KINDS if isinstance(error, found)), errors.BackendError)
        raise kind(error.message, error.remedy) from error
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise errors.Unavailable(
            f"The system refused: {error.strerror or error}{where}.", "Check that the disk is there and mounted."
        ) from error
