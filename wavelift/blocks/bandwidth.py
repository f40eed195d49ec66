"""How fast may be sent, and when: a limit, and windows of the week with limits of their own. Pure; no clock."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from wavelift.blocks.rate import SLOWEST, parse_rate, rate_text

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES = 24 * 60
# Two weeks and a day: a window that the clock jumps over in one week comes in the next.
HORIZON = timedelta(days=15)
_CLOCK = re.compile(r"^([01]\d|2[0-3]):([0-5]\d)$", re.ASCII)


def _limit(value: Any) -> Any:
    if isinstance(value, str):
        return 0 if value.strip() == "0" else parse_rate(value)
    if isinstance(value, int) and not isinstance(value, bool) and value != 0 and value < SLOWEST:
        raise ValueError(f"{value} is no limit; write 0 for a pause, or at least {SLOWEST} bytes per second")
    return value


def _minute(value: Any) -> int:
    # YAML 1.1 reads an unquoted 22:00 as sixties: 1320, which happens to be the minutes. What is less than an hour
    # comes from a bare 8 instead, and would mean 00:08.
    if isinstance(value, int) and not isinstance(value, bool) and 60 <= value <= MINUTES:
        return value
    found = _CLOCK.match(value) if isinstance(value, str) else None
    if value == "24:00":
        return MINUTES
    if found is None:
        raise ValueError(f"{value!r} is no time of day; write for example 08:30, or 24:00 for the end of the day")
    return int(found[1]) * 60 + int(found[2])


def _zone_name(value: Any) -> str:
    try:
        zone(str(value))
    except (OSError, ValueError, KeyError):
        raise ValueError(f"{value!r} is no time zone known here; write for example Asia/Shanghai or UTC") from None
    return str(value)


def zone(name: str) -> tzinfo:
    """Raises KeyError, ValueError or OSError for a name that is none."""
    # UTC has to work on a host without a time zone database as well.
    return UTC if name == "UTC" else ZoneInfo(name)


Limit = Annotated[int, BeforeValidator(_limit, json_schema_input_type=int | str), Field(ge=0)]
Minute = Annotated[
    int,
    BeforeValidator(_minute, json_schema_input_type=str),
    PlainSerializer(lambda minute: f"{minute // 60:02}:{minute % 60:02}", return_type=str),
]
ZoneName = Annotated[str, BeforeValidator(_zone_name, json_schema_input_type=str)]


class Window(BaseModel):
    """`from` to `to` by the clock on the wall, on the days it begins; past midnight where `to` is not later.

    Where the clock is put forward or back, what it shows counts: a window in the skipped hour is left out that
    day, one in the repeated hour comes twice.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)

    days: Annotated[tuple[Day, ...], Field(min_length=1)] = Field(default=DAYS, description="mon, tue, ... sun")
    start: Minute = Field(alias="from", description="time of day, for example 08:00")
    end: Minute = Field(alias="to", description="time of day, for example 18:00")
    limit: Limit | None = Field(description="for example 5MB/s; 0 pauses, null lifts the limit")

    def holds(self, local: datetime) -> bool:
        minute = local.hour * 60 + local.minute
        today, yesterday = DAYS[local.weekday()], DAYS[local.weekday() - 1]
        if self.start < self.end:
            return today in self.days and self.start <= minute < self.end
        return (today in self.days and minute >= self.start) or (yesterday in self.days and minute < self.end)


class Bandwidth(BaseModel):
    """`limit` in bytes per second (None: none) outside all windows; inside, that of the first that holds."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)

    limit: Limit | None = Field(default=None, description="for example 50MB/s or 400mbit")
    windows: Annotated[tuple[Window, ...], Field(max_length=50)] = Field(
        default=(), description="times of the week with limits of their own; the first that holds counts"
    )
    timezone: ZoneName = Field(default="UTC", description="of the windows, for example Asia/Shanghai")

    def at(self, moment: datetime) -> int | None:
        """The limit at an aware moment: bytes per second, 0 is a pause, None is no limit."""
        local = moment.astimezone(zone(self.timezone))
        return next((window.limit for window in self.windows if window.holds(local)), self.limit)

    def until(self, moment: datetime) -> datetime | None:
        """When the limit of `moment` ends, in UTC; None when it does not within two weeks."""
        now = self.at(moment)
        return next((edge for edge in self._edges(moment.astimezone(UTC)) if self.at(edge) != now), None)

    def _edges(self, since: datetime) -> Iterator[datetime]:
        """Every moment at which the limit may change, in order."""
        minutes = sorted({minute for window in self.windows for minute in (window.start, window.end)})
        if not minutes:
            return
        for begin, end, offset in _spans(since, zone(self.timezone)):
            midnight = (begin + offset).replace(hour=0, minute=0, second=0, microsecond=0)
            for day in range((end - begin).days + 2):
                for minute in minutes:
                    edge = midnight + timedelta(days=day, minutes=minute) - offset
                    if begin < edge < end:
                        yield edge
            yield end

    def __str__(self) -> str:
        limit = "no limit" if self.limit is None else rate_text(self.limit)
        return f"{limit}, {len(self.windows)} window(s) in {self.timezone}" if self.windows else limit


def _spans(since: datetime, where: tzinfo) -> Iterator[tuple[datetime, datetime, timedelta]]:
    """The time from `since` (UTC) to the horizon, cut where the zone's offset from UTC changes."""

    def offset(moment: datetime) -> timedelta:
        return moment.astimezone(where).utcoffset() or timedelta()

    last = since + HORIZON
    begin, here = since, offset(since)
    moment = since
    while moment < last:
        following = min(last, moment + timedelta(hours=1))
        if offset(following) != here:
            low, high = moment, following
            while high - low > timedelta(microseconds=1):
                middle = low + (high - low) / 2
                low, high = (middle, high) if offset(middle) == here else (low, middle)
            yield begin, high, here
            begin, here = high, offset(high)
        moment = following
    yield begin, last, here


def bandwidth_of(value: Any) -> Any:
    """`50MB/s` as well as the whole mapping."""
    return {"limit": value} if isinstance(value, str | int) and not isinstance(value, bool) else value


# A field of this type takes the short form as well.
AnyBandwidth = Annotated[Bandwidth, BeforeValidator(bandwidth_of, json_schema_input_type=Bandwidth | int | str)]
