"""The limits of a service: one for all it moves, one for each migration; kept in a file, in force at once."""

from __future__ import annotations

import threading
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from wavelift.blocks.bandwidth import AnyBandwidth, Bandwidth
from wavelift.blocks.errors import BlockError
from wavelift.blocks.files import write_durably
from wavelift.blocks.throttle import Throttle


class LimitsUnreadable(BlockError):
    """The file of the limits is not what was written; `path` names it."""

    default_code = "limits_unreadable"

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(
            f"{path} cannot be read: {reason}.", "Correct it, or delete it and set the limits again by PUT."
        )


class SetLimit(BaseModel):
    """What a PUT carries; null takes the limit back."""

    model_config = ConfigDict(extra="forbid")

    bandwidth: AnyBandwidth | None


class LimitAnswer(BaseModel):
    """A limit as it was given, what of it is in force (bytes per second, 0 paused, null none) and until when."""

    bandwidth: Bandwidth | None
    limit: int | None
    until: datetime | None


class MigrationLimitAnswer(LimitAnswer):
    """`set_by` a PUT here or a job; null where nobody limits the migration."""

    set_by: Literal["request", "job"] | None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    all: Bandwidth | None = None
    migrations: dict[str, Bandwidth] = {}


class Limits:
    def __init__(self, path: Path) -> None:
        """Raises `LimitsUnreadable`, OSError."""
        self._path = path
        self._lock = threading.Lock()
        self._set = _read(path)
        self._ordered: dict[str, Bandwidth | None] = {}
        self.all = Throttle(self._set.all)
        self._throttles: defaultdict[str, Throttle] = defaultdict(Throttle)
        for migration, bandwidth in self._set.migrations.items():
            self._throttles[migration].change(bandwidth)

    def of(self, migration: str) -> list[Throttle]:
        """What everything of a migration goes through."""
        with self._lock:
            return [self._throttles[migration], self.all]

    def set_all(self, bandwidth: Bandwidth | None) -> None:
        with self._lock:
            self._keep(self._set.model_copy(update={"all": bandwidth}))
            self.all.change(bandwidth or Bandwidth())

    def set(self, migration: str, bandwidth: Bandwidth | None) -> None:
        """Goes before what jobs carry, until it is taken back with None."""
        with self._lock:
            others = {name: each for name, each in self._set.migrations.items() if name != migration}
            migrations = others if bandwidth is None else {**others, migration: bandwidth}
            if migrations != self._set.migrations:
                self._keep(self._set.model_copy(update={"migrations": migrations}))
            self._apply(migration)

    def order(self, migration: str, bandwidth: Bandwidth | None) -> None:
        """What the migration's latest job carries."""
        with self._lock:
            self._ordered[migration] = bandwidth
            self._apply(migration)

    def forget(self, migration: str) -> None:
        self.order(migration, None)
        self.set(migration, None)

    def about_all(self) -> LimitAnswer:
        with self._lock:
            now = self.all.now()
            return LimitAnswer(bandwidth=self._set.all, limit=now.limit, until=now.until)

    def about(self, migration: str) -> MigrationLimitAnswer:
        with self._lock:
            bandwidth, set_by = self._in_force(migration)
            now = self._throttles[migration].now()
            return MigrationLimitAnswer(bandwidth=bandwidth, limit=now.limit, until=now.until, set_by=set_by)

    def _in_force(self, migration: str) -> tuple[Bandwidth | None, Literal["request", "job"] | None]:
        if migration in self._set.migrations:
            return self._set.migrations[migration], "request"
        ordered = self._ordered.get(migration)
        return ordered, None if ordered is None else "job"

    def _apply(self, migration: str) -> None:
        bandwidth = self._in_force(migration)[0] or Bandwidth()
        throttle = self._throttles[migration]
        if throttle.bandwidth != bandwidth:
            throttle.change(bandwidth)

    def _keep(self, limits: _File) -> None:
        write_durably(self._path, limits.model_dump_json().encode())
        self._set = limits


def _read(path: Path) -> _File:
    try:
        return _File.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return _File()
    except ValidationError as error:
        raise LimitsUnreadable(path, str(error.errors()[0]["msg"])) from None
