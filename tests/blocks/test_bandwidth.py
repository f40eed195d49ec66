"""Windows of the week, against an oracle that writes every window down as an interval."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from wavelift.blocks.bandwidth import DAYS, AnyBandwidth, Bandwidth, Window

# Half an hour of summer time, none, a quarter-hour offset, changes at midnight, and the usual ones.
ZONES = [
    "UTC",
    "Asia/Shanghai",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Africa/Cairo",
]
LIMITS = st.sampled_from([None, 0, 64_000, 5_000_000])
MINUTE = timedelta(minutes=1)


def window(begin: int | str, end: int | str, limit: int | None, *days: str) -> Window:
    begin, end = (f"{at // 60:02}:{at % 60:02}" if isinstance(at, int) else at for at in (begin, end))
    return Window.model_validate({"from": begin, "to": end, "limit": limit, "days": days or DAYS})


@st.composite
def plans(draw: st.DrawFn) -> Bandwidth:
    minutes = st.integers(0, 1439) | st.sampled_from([0, 60, 120, 150, 180, 1440])
    windows = [
        window(draw(minutes), draw(minutes), draw(LIMITS), *draw(st.lists(st.sampled_from(DAYS), unique=True)))
        for _ in range(draw(st.integers(0, 3)))
    ]
    return Bandwidth(limit=draw(LIMITS), windows=tuple(windows), timezone=draw(st.sampled_from(ZONES)))


# The clock is put in most of the zones within two days of these.
MOMENTS = st.sampled_from(
    ["2026-03-27", "2026-10-23", "2026-03-07", "2026-10-31", "2026-04-03", "2026-04-23", "2027-01-01"]
)


def oracle(plan: Bandwidth, moment: datetime) -> int | None:
    wall = moment.astimezone(ZoneInfo(plan.timezone)).replace(tzinfo=None)
    today = datetime.combine(wall.date(), datetime.min.time())
    for each in plan.windows:
        for day in (today - timedelta(days=1), today):
            if f"{day:%a}".lower() not in each.days:
                continue
            begin, end = day + each.start * MINUTE, day + each.end * MINUTE
            if end <= begin:
                end += timedelta(days=1)
            if begin <= wall < end:
                return each.limit
    return plan.limit


@settings(max_examples=60, deadline=None)
@given(plans(), MOMENTS, st.integers(0, 4 * 1440), st.integers(0, 59))
def test_the_limit_and_its_end_are_what_minute_by_minute_shows(
    plan: Bandwidth, day: str, minute: int, second: int
) -> None:
    moment = datetime.fromisoformat(day).replace(tzinfo=UTC) + minute * MINUTE + timedelta(seconds=second)
    limit = plan.at(moment)
    assert limit == oracle(plan, moment)
    until = plan.until(moment)
    whole = moment.replace(second=0)
    later = (whole + ahead * MINUTE for ahead in range(1, 2 * 1440))
    changed = next((each for each in later if oracle(plan, each) != limit), None)
    if changed is not None:
        assert until == changed
    else:
        assert until is None or (until > whole + 2 * 1440 * MINUTE - MINUTE and oracle(plan, until) != limit)


def test_a_window_past_midnight_belongs_to_the_day_it_begins() -> None:
    plan = Bandwidth(limit=None, windows=(window("22:00", "06:00", 0, "fri"),), timezone="Europe/Berlin")
    friday = datetime(2026, 11, 20, 21, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    assert (plan.at(friday), plan.until(friday)) == (None, datetime(2026, 11, 20, 21, 0, tzinfo=UTC))
    saturday = friday + timedelta(hours=8)
    assert (plan.at(saturday), plan.until(saturday)) == (0, datetime(2026, 11, 21, 5, 0, tzinfo=UTC))
    assert plan.at(friday - timedelta(days=1) + timedelta(hours=1)) is None


def test_the_hour_that_is_skipped_and_the_hour_that_comes_twice() -> None:
    plan = Bandwidth(limit=None, windows=(window("02:30", "04:00", 0),), timezone="Europe/Berlin")
    # 02:00 is 03:00 that night, 01:00 UTC.
    spring = datetime(2026, 3, 29, 0, 59, tzinfo=UTC)
    assert (plan.at(spring), plan.until(spring)) == (None, datetime(2026, 3, 29, 1, 0, tzinfo=UTC))
    assert plan.until(spring + MINUTE) == datetime(2026, 3, 29, 2, 0, tzinfo=UTC)
    # 02:00 to 03:00 comes twice; the second time it begins at 01:00 UTC.
    autumn = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert (plan.at(autumn), plan.until(autumn)) == (0, datetime(2026, 10, 25, 1, 0, tzinfo=UTC))
    again = datetime(2026, 10, 25, 1, 0, tzinfo=UTC)
    assert (plan.at(again), plan.until(again)) == (None, datetime(2026, 10, 25, 1, 30, tzinfo=UTC))


def test_the_first_window_that_holds_counts() -> None:
    plan = Bandwidth(limit=10_000, windows=(window("12:00", "13:00", None), window("08:00", "18:00", 5000)))
    noon = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
    assert [plan.at(noon + timedelta(hours=hours)) for hours in (0, 1, -1, 8)] == [None, 5000, 5000, 10_000]


class Holder(BaseModel):
    bandwidth: AnyBandwidth | None = None


@given(plans())
@settings(max_examples=30, deadline=None)
def test_a_plan_survives_json(plan: Bandwidth) -> None:
    assert Holder.model_validate_json(Holder(bandwidth=plan).model_dump_json()).bandwidth == plan


def test_the_short_form_and_what_yaml_makes_of_a_time_of_day() -> None:
    assert Holder.model_validate({"bandwidth": "400mbit"}).bandwidth == Bandwidth(limit=50_000_000)
    assert Holder.model_validate({"bandwidth": 64_000}).bandwidth == Bandwidth(limit=64_000)
    # 22:00 without quotes is 1320 in YAML 1.1.
    assert Window.model_validate({"from": 1320, "to": 1440, "limit": 0}) == window("22:00", "24:00", 0)


@pytest.mark.parametrize(
    ("value", "where", "words"),
    [
        ("fast", ("bandwidth", "limit"), "no rate"),
        (500, ("bandwidth", "limit"), "at least 1000"),
        (True, ("bandwidth",), "dictionary"),
        ({"timezone": "Mars/Base"}, ("bandwidth", "timezone"), "time zone"),
        ({"windows": [{"from": 8, "to": 1080, "limit": 0}]}, ("bandwidth", "windows", 0, "from"), "time of day"),
        ({"windows": [{"from": 480, "to": 18, "limit": 0}]}, ("bandwidth", "windows", 0, "to"), "time of day"),
        ({"windows": [{"from": "8", "to": "09:00", "limit": 0}]}, ("bandwidth", "windows", 0, "from"), "time of day"),
        ({"windows": [{"from": "08:00", "to": "24:01", "limit": 0}]}, ("bandwidth", "windows", 0, "to"), "time of day"),
        ({"windows": [{"from": "08:00", "to": "09:00"}]}, ("bandwidth", "windows", 0, "limit"), "required"),
        (
            {"windows": [{"from": "08:00", "to": "09:00", "limit": 0, "days": []}]},
            ("bandwidth", "windows", 0, "days"),
            "1",
        ),
    ],
)
def test_what_is_wrong_is_named(value: object, where: tuple[str | int, ...], words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Holder.model_validate({"bandwidth": value})
    first = refused.value.errors()[0]
    assert first["loc"] == where and words in first["msg"]
