"""Rules from YAML, and what a person is told who gets them wrong."""

from pathlib import Path

import pytest

from wavelift.localcloud.faults.kinds import Throttle
from wavelift.localcloud.faults.loading import RulesError, load, parse, parse_rule

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "faults.yaml"


def problems(text: str) -> list[str]:
    with pytest.raises(RulesError) as caught:
        parse(text, "faults.yaml")
    return str(caught.value).splitlines()


def test_a_rule_is_read_as_it_is_written() -> None:
    (rule,) = parse(
        """
        rules:
          - id: slow-start
            service: ecs
            action: Create*
            resource: d-*
            parameters: {DiskName: web-*}
            from: 2
            every: 3
            times: 4
            fault: {kind: throttle, retry_after_ms: 500}
        """,
        "x",
    )
    assert (rule.id, rule.service, rule.action, rule.resource) == ("slow-start", "ecs", "Create*", "d-*")
    assert (rule.first, rule.every, rule.times, rule.parameters) == (2, 3, 4, {"DiskName": "web-*"})
    assert rule.fault == Throttle(kind="throttle", retry_after_ms=500)


def test_json_is_read_too() -> None:
    assert parse_rule('{"calls": [1, 3], "fault": {"kind": "reset"}}', "x").calls == [1, 3]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("action: X", ":2: rules[0].fault: is missing; add it"),
        ("fault: {}", ":2: rules[0].fault: `kind` is missing; add it"),
        ("fault: {kind: throtle}", ":2: rules[0].fault: there is no kind 'throtle'; use one of 'throttle', "),
        ("fault:\n      kind: delay\n      second: 1", ":4: rules[0].fault.second: there is no such field here"),
        ("fault:\n      kind: delay\n      second: 1", ":2: rules[0].fault.seconds: is missing; add it"),
        ("fault: {kind: reset}\n    calls:\n      - 0", ":4: rules[0].calls[0]: input should be greater than or equal"),
        (
            "fault: {kind: reset}\n    probability: 2",
            ":3: rules[0].probability: input should be less than or equal to 1",
        ),
        ("fault: {kind: reset}\n    service: rds", ":3: rules[0].service: input should be 'ecs', 'oss' or 'sts', not"),
        ("fault: {kind: reset}\n    calls: [1]\n    every: 2", ":2: rules[0]: `calls` names the calls already"),
        ("fault: {kind: wrong-crc}\n    service: ecs", ":2: rules[0]: the fault wrong-crc exists for oss only"),
        ("fault: {kind: throttle, retry_after_ms: 9}\n    service: oss", ":2: rules[0]: OSS does not say when"),
        ("fault: {kind: disk-full, of: disk}\n    action: X", ":2: rules[0]: disk-full is no answer to an action"),
        ("fault: {kind: slow-body, bytes_per_second: 1}\n    action: Put*", ":2: rules[0]: slow-body spoils GetObject"),
        ("fault: {kind: stale, seconds: 1}\n    action: Create*", ":2: rules[0]: stale is for reading"),
        (
            "fault: {kind: failed-transition, of: snapshot, state: Creating}",
            ":2: rules[0].fault.state: must be one of progressing, not 'Creating'",
        ),
    ],
)
def test_a_mistake_names_line_field_and_remedy(rule: str, expected: str) -> None:
    found = problems(f"rules:\n  - {rule}\n")
    assert any(line.startswith(f"faults.yaml{expected}") for line in found), found


def test_what_cannot_fail_has_no_rule() -> None:
    """The state would say Stopped, and the machine would run on."""
    text = "rules: [{fault: {kind: failed-transition, of: instance, state: Stopping}}]"
    assert problems(text)[0].endswith("must be one of Pending, Starting, not 'Stopping'")


def test_a_field_is_written_once() -> None:
    text = "rules:\n  - fault: {kind: reset}\n    times: 1\n    times: 2\n"
    assert problems(text) == ["faults.yaml:4: times: is written twice"]


def test_every_mistake_is_told_at_once_in_the_order_of_the_file() -> None:
    found = problems("rules:\n  - {fault: {kind: a}}\n  - {fault: {kind: reset}, color: red}\n  - {}\n")
    assert [line.split(":")[1] for line in found] == ["2", "3", "4"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "faults.yaml:1: write a mapping that starts with `rules:`"),
        ("- a", "faults.yaml:1: write a mapping that starts with `rules:`"),
        ("rules:\n  - [", "faults.yaml:2: no valid YAML: "),
        ("rules: !!python/object:os.system x", "faults.yaml:1: no valid YAML: could not determine a constructor"),
        ("[" * 20_000, "faults.yaml:1: is nested too deeply; no rule needs that"),
        ("rules: [{from: 2001-99-99}]", "faults.yaml:1: a value cannot be read: month must be in 1..12"),
        (f"rules: [{{from: {'9' * 5000}}}]", "faults.yaml:1: a value cannot be read: "),
        ("rules: !!bool x", "faults.yaml:1: a value cannot be read: "),
        ("rules: !!timestamp x", "faults.yaml:1: a value cannot be read: "),
        ("rules: 5", "faults.yaml:1: rules: input should be a valid list"),
    ],
)
def test_what_is_no_list_of_rules_is_refused(text: str, expected: str) -> None:
    (found,) = problems(text)
    assert found.startswith(expected)


def test_an_id_names_one_rule() -> None:
    text = "rules:\n  - {id: a, fault: {kind: reset}}\n  - id: a\n    fault: {kind: reset}\n"
    assert problems(text) == ["faults.yaml:3: rules[1].id: another rule has this id; give each its own"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RulesError, match=f"{tmp_path}/none.yaml:1: cannot be read: "):
        load(tmp_path / "none.yaml")


def test_the_example_shows_every_point_where_a_fault_can_happen() -> None:
    assert {rule.fault.point for rule in load(EXAMPLE)} == {"request", "done", "reply", "transition", "copy"}
