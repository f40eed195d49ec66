"""Whose turn it is: counting, choosing, forgetting."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavelift.localcloud.faults.book import Book, Counter, KnownRule, UnknownRule
from wavelift.localcloud.faults.rules import Call, Rule

RESET = {"kind": "reset"}


def rule(name: str = "r", fault: dict[str, Any] = RESET, **fields: Any) -> Rule:
    return Rule.model_validate({"id": name, "fault": fault, **fields})


def call(action: str = "CreateDisk", *resources: str, **parameters: str) -> Call:
    return Call("ecs", action, resources, parameters)


def hits(book: Book, calls: int) -> list[int]:
    return [number for number in range(1, calls + 1) if book.take("request", call())]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7]),
        ({"calls": [3, 5]}, [3, 5]),
        ({"from": 5}, [5, 6, 7]),
        ({"every": 3}, [3, 6]),
        ({"from": 2, "every": 3}, [2, 5]),
        ({"times": 2}, [1, 2]),
        ({"every": 2, "times": 2}, [2, 4]),
        ({"probability": 1.0}, [1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_which_calls_are_hit(fields: dict[str, Any], expected: list[int]) -> None:
    book = Book([rule(**fields)])
    assert hits(book, 7) == expected
    assert book.counter("r") == Counter(selected=7, injected=len(expected))


def test_a_rate_is_drawn_from_its_seed_alone() -> None:
    def drawn(seed: int, *others: Rule) -> list[int]:
        return [
            n
            for n, book in [
                (n, book) for book in [Book([*others, rule(probability=0.3, seed=seed)])] for n in range(300)
            ]
            if any(winner.id == "r" for winner in book.take("request", call()))
        ]

    assert drawn(1) == drawn(1) == drawn(1, rule("other", {"kind": "delay", "seconds": 1}, probability=0.5))
    assert drawn(1) != drawn(2)
    assert 60 < len(drawn(1)) < 120


@pytest.mark.parametrize(
    ("fields", "selected"),
    [
        ({"action": "Create*"}, [True, True, False, False]),
        ({"action": "CreateDisk"}, [True, False, False, False]),
        ({"resource": "d-1"}, [False, True, True, False]),
        ({"resource": "s-*"}, [False, False, True, False]),
        ({"parameters": {"DiskName": "web-*"}}, [True, False, False, False]),
        ({"service": "oss"}, [False, False, False, True]),
        ({"service": "oss", "resource": "bucket/*.raw"}, [False, False, False, True]),
        ({"resource": "[ds]-1"}, [False, False, False, False]),
    ],
)
def test_what_a_rule_selects(fields: dict[str, Any], selected: list[bool]) -> None:
    calls = [
        call("CreateDisk", DiskName="web-1"),
        call("CreateSnapshot", "d-1", DiskName="db"),
        call("DescribeSnapshots", "d-1", "s-2"),
        Call("oss", "PutObject", ("bucket/a/b.raw",)),
    ]
    assert [rule(**fields).selects(each) for each in calls] == selected


def test_every_rule_counts_and_the_first_wins_its_slot() -> None:
    late, reset = rule("late", {"kind": "delay", "seconds": 1}), rule("reset")
    book = Book([late, rule("busy", {"kind": "throttle"}, calls=[2]), reset])
    taken = [[winner.id for winner in book.take("request", call())] for _ in range(2)]
    assert taken == [["late", "reset"], ["late", "busy"]]
    assert book.counter("reset") == Counter(2, 1) and book.counter("busy") == Counter(2, 1)
    assert [entry.rule for entry in book.log()] == ["late", "reset", "late", "busy"]


def test_no_read_lags_that_does_not_happen() -> None:
    book = Book([rule("old", {"kind": "stale", "seconds": 1}), rule("no", {"kind": "throttle"}, calls=[1])])
    taken = [[winner.id for winner in book.take("request", call("DescribeDisks"))] for _ in range(2)]
    assert taken == [["no"], ["old"]] and book.counter("old").injected == 1


def test_rules_come_and_go() -> None:
    book = Book([rule("start")])
    assert [each.id for each in book.add([rule(""), rule("")])] == ["rule-1", "rule-2"]
    with pytest.raises(KnownRule):
        book.add([rule("new"), rule("start")])
    assert [each.id for each, _ in book.rules()] == ["start", "rule-1", "rule-2"]
    hits(book, 2)
    book.replace("start", rule("another", every=2))
    assert book.counter("start") == Counter() and book.rules()[0][0].every == 2
    book.remove("rule-1")
    for gone in (book.remove, book.counter, lambda name: book.replace(name, rule())):
        with pytest.raises(UnknownRule):
            gone("rule-1")
    assert len(book.log()) == len(book.log("start")) == 2
    book.reset()
    assert [(each.id, each.every, counter) for each, counter in book.rules()] == [("start", None, Counter())]
    assert book.log() == []
    book.clear()
    assert not book.active


def test_calls_at_once_are_counted_once() -> None:
    book = Book([rule(every=3, times=50)])
    with ThreadPoolExecutor(8) as pool:
        winners = list(pool.map(lambda _: book.take("request", call()), range(300)))
    assert book.counter("r") == Counter(300, 50) and sum(map(bool, winners)) == 50 == len(book.log())


turns = st.fixed_dictionaries(
    {},
    optional={
        "from": st.integers(1, 12),
        "every": st.integers(1, 5),
        "times": st.integers(1, 6),
        "probability": st.floats(0.1, 1),
        "seed": st.integers(0, 3),
        "action": st.sampled_from(["*", "Create*", "CreateDisk", "Describe*"]),
    },
)
actions = st.lists(st.sampled_from(["CreateDisk", "CreateImage", "DescribeDisks"]), max_size=60)


@settings(max_examples=150, deadline=None)
@given(fields=st.lists(turns, min_size=1, max_size=4), made=actions)
def test_counters_and_log_agree_with_what_was_taken(fields: list[dict[str, Any]], made: list[str]) -> None:
    rules = [rule(f"r{n}", **each) for n, each in enumerate(fields)]
    book, again = Book(rules), Book(rules)
    taken = [[winner.id for winner in book.take("request", call(action))] for action in made]
    # The same rules and the same calls: the same faults.
    assert taken == [[winner.id for winner in again.take("request", call(action))] for action in made]
    assert all(len(each) <= 1 for each in taken)
    assert [entry.rule for entry in book.log()] == [name for each in taken for name in each]
    for each, counter in book.rules():
        own = [n for n, action in enumerate(made) if each.selects(call(action))]
        won = [n for n in own if taken[n] == [each.id]]
        assert counter == Counter(len(own), len(won))
        assert each.times is None or len(won) <= each.times
        for n in won:
            assert each.due(own.index(n) + 1)
            assert not any(taken[n] == [other.id] for other in rules if other is not each)
        for n in own:
            # A turn is lost only to a rule that stands before, or when all turns were used up.
            if each.due(own.index(n) + 1) and n not in won:
                before = [other.id for other in rules[: rules.index(each)]]
                assert (taken[n] and taken[n][0] in before) or sum(w < n for w in won) == each.times
