"""The throttle's arithmetic and its waiting, on a clock that moves only when somebody waits."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavelift.blocks.bandwidth import Bandwidth, Window
from wavelift.blocks.bucket import BURST_SECONDS, LARGEST_CHUNK, Bucket, Turns, chunk_of
from wavelift.blocks.throttle import Clock, Flow, Now, Stopped, Throttle, strictest

START = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)


class FakeClock(Clock):
    """Waiting is what makes the time pass."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.waits = 0

    def seconds(self) -> float:
        return self.at

    def now(self) -> datetime:
        return START + timedelta(seconds=self.at - 1000.0)

    def wait(self, turn: threading.Condition, seconds: float) -> None:
        assert seconds > 0
        self.at += seconds
        self.waits += 1


def send(flow: Flow, count: int) -> list[int]:
    chunks = []
    while count:
        chunks.append(flow.take(count))
        count -= chunks[-1]
    return chunks


@settings(max_examples=200)
@given(
    st.integers(1000, 10**9),
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, LARGEST_CHUNK)), min_size=1, max_size=40),
)
def test_no_more_goes_than_the_rate_and_one_burst(rate: int, steps: list[tuple[float, int]]) -> None:
    bucket = Bucket(rate, 0.0)
    burst = max(rate * BURST_SECONDS, chunk_of(rate))
    assert burst <= max(rate, chunk_of(rate))
    now, went = 0.0, 0
    for idle, count in steps:
        count = min(count, chunk_of(rate))
        now += idle
        now += (pause := bucket.delay(count, now))
        assert bucket.delay(count, now) == 0
        bucket.take(count)
        went += count
        assert went <= rate * (now + 1e-5) + burst + 1
        # Nor is anybody kept waiting for what is there.
        assert pause <= count / rate + 1e-5


@pytest.mark.parametrize("rate", [64_000, 1000, 50_000_000])
def test_a_pack_takes_its_size_over_the_rate_in_small_chunks(rate: int) -> None:
    clock = FakeClock()
    chunks = send(Flow("job", [Throttle(Bandwidth(limit=rate), clock)]), 4 << 20)
    assert clock.at - 1000.0 == pytest.approx((4 << 20) / rate)
    assert max(chunks) <= max(1024, rate / 10)
    # It sleeps for what is lacking, and to hear of a stop, and never else.
    assert clock.waits <= len(chunks) + (clock.at - 1000) * 10 + 1


def test_the_narrowest_of_several_limits_counts() -> None:
    clock = FakeClock()
    agent, migration = Throttle(Bandwidth(limit=500_000), clock), Throttle(Bandwidth(limit=100_000), clock)
    send(Flow("web", [migration, agent]), 1_000_000)
    assert clock.at - 1000.0 == pytest.approx(10, abs=0.3)
    migration.change(Bandwidth())
    before = clock.at
    send(Flow("web", [migration, agent]), 1_000_000)
    assert clock.at - before == pytest.approx(2, abs=0.3)


def test_without_a_limit_there_is_no_lock_and_no_wait() -> None:
    clock = FakeClock()
    throttle = Throttle(Bandwidth(), clock)
    with throttle._lock:
        assert send(Flow("web", [throttle]), 1 << 20) == [1 << 20]
    assert send(Flow("web"), 1 << 20) == [1 << 20]
    assert clock.waits == 0


@given(st.lists(st.sampled_from("abc"), min_size=3, max_size=12), st.integers(60, 200))
@settings(max_examples=50)
def test_lanes_that_wait_share_alike_however_many_senders_they_have(senders: list[str], rounds: int) -> None:
    turns = Turns()
    turn = threading.Condition()
    tickets = [(lane, turns.join(lane, 1000, turn)) for lane in senders]
    served: Counter[str] = Counter()
    for _ in range(rounds):
        first = turns.first
        index = next(index for index, (_, ticket) in enumerate(tickets) if ticket is first)
        lane, ticket = tickets.pop(index)
        turns.serve(ticket)
        tickets.append((lane, turns.join(lane, 1000, turn)))
        turns.leave(ticket)
        served[lane] += 1
    counts = [served[lane] for lane in set(senders)]
    assert max(counts) - min(counts) <= 1


def test_a_window_pauses_and_its_end_is_told() -> None:
    clock = FakeClock()
    pause = Window.model_validate({"from": "08:00", "to": "08:05", "limit": 0})
    throttle = Throttle(Bandwidth(limit=1_000_000, windows=(pause,)), clock)
    assert throttle.now() == Now(1_000_000, START + timedelta(hours=1))
    # Two seconds' worth, one before the window: the rest goes after it.
    flow = Flow("web", [throttle])
    clock.at += 3599.0
    send(flow, 500_000)
    assert clock.now() < START + timedelta(hours=1)
    seen: list[Now] = []
    flow = Flow("web", [throttle], lambda: bool(seen.append(throttle.now())))
    send(flow, 1_000_000)
    assert Now(0, START + timedelta(hours=1, minutes=5)) in seen
    assert START + timedelta(hours=1, minutes=5) < clock.now() < START + timedelta(hours=1, minutes=5, seconds=2)


def test_the_strictest_limit_and_the_last_pause() -> None:
    later = START + timedelta(hours=1)
    assert strictest([]) == strictest([Now(None, later)]) == Now(None, None)
    assert strictest([Now(None, later), Now(5000, None), Now(6000, START)]) == Now(5000, None)
    assert strictest([Now(0, START), Now(0, later), Now(6000, None)]) == Now(0, later)
    assert strictest([Now(0, START), Now(0, None)]) == Now(0, None)


def waiting(throttle: Throttle, stop: threading.Event) -> tuple[threading.Thread, list[BaseException | None]]:
    """A thread that waits for its bytes on a real clock; how it ended."""
    ended: list[BaseException | None] = []

    def run() -> None:
        try:
            send(Flow("web", [throttle], stop.is_set), 1 << 30)
            ended.append(None)
        except Stopped as error:
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while throttle._turns.first is None:
        stop.wait(0.001)
    return thread, ended


def test_those_who_wait_hear_of_a_raised_limit() -> None:
    throttle = Throttle(Bandwidth(limit=0))
    threads = [waiting(throttle, threading.Event()) for _ in range(4)]
    throttle.change(Bandwidth())
    for thread, ended in threads:
        thread.join(60)
        assert ended == [None]


def test_those_who_wait_hear_of_their_stop_and_leave_the_others_waiting() -> None:
    throttle = Throttle(Bandwidth(limit=0))
    stop = threading.Event()
    thread, ended = waiting(throttle, stop)
    other = threading.Event()
    second, _ = waiting(throttle, other)
    stop.set()
    thread.join(60)
    assert isinstance(ended[0], Stopped) and second.is_alive()
    other.set()
    second.join(60)
    assert throttle._turns.first is None
