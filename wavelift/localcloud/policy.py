"""What a session policy lets a temporary key do: RAM policies, with a condition on what is listed."""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from wavelift.localcloud.wildcards import matches

_STATEMENT = {"Effect", "Action", "Resource"}
_CONDITION = "Condition"
# Names of keys are compared without case.
_OPERATORS: dict[str, Callable[[str, str], bool]] = {"StringEquals": str.__eq__, "StringLike": matches}
_KEYS = {"oss:prefix"}


class MalformedPolicy(Exception):
    """The text is no policy, or one with elements that are not evaluated here."""


def parse(text: str) -> dict[str, Any]:
    """A policy document that `allows` understands. What it would not understand is refused, never ignored."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise MalformedPolicy("it is not JSON") from None
    if not isinstance(document, dict) or set(document) != {"Version", "Statement"} or document["Version"] != "1":
        raise MalformedPolicy('it has Version "1" and Statement')
    statements = document["Statement"]
    if not isinstance(statements, list) or not statements:
        raise MalformedPolicy("Statement is a list")
    for statement in statements:
        if not isinstance(statement, dict) or set(statement) - {_CONDITION} != _STATEMENT:
            raise MalformedPolicy("a statement has Effect, Action and Resource")
        if not _good_condition(statement.get(_CONDITION, {})):
            raise MalformedPolicy("a condition is StringEquals or StringLike of oss:Prefix")
        if statement["Effect"] not in {"Allow", "Deny"}:
            raise MalformedPolicy("an effect is Allow or Deny")
        if not all(_patterns(statement[element]) for element in ("Action", "Resource")):
            raise MalformedPolicy("an action or a resource is a text or a list of texts")
    return document


def allows(
    policy: Mapping[str, Any] | None, action: str, *names: str, about: Mapping[str, str] = MappingProxyType({})
) -> bool:
    """May the holder do `action` (ecs:CreateDisk) to what goes by `names` (acs:ecs:cn-local:1:disk/d-1)?

    `about`: what conditions may ask of the request. No policy limits nothing.
    """
    if policy is None:
        return True
    effects = {
        statement["Effect"]
        for statement in policy["Statement"]
        if any(matches(pattern.lower(), action.lower()) for pattern in _patterns(statement["Action"]))
        and any(matches(pattern, name) for pattern in _patterns(statement["Resource"]) for name in names)
        and _holds(statement.get(_CONDITION, {}), about)
    }
    return effects == {"Allow"}


def _good_condition(condition: Any) -> bool:
    return isinstance(condition, dict) and all(
        operator in _OPERATORS
        and isinstance(wanted, dict)
        and all(key.lower() in _KEYS and _patterns(values) for key, values in wanted.items())
        for operator, wanted in condition.items()
    )


def _holds(condition: Mapping[str, Mapping[str, Any]], about: Mapping[str, str]) -> bool:
    """What the request does not say fulfils nothing."""
    return all(
        key.lower() in about and any(_OPERATORS[operator](pattern, about[key.lower()]) for pattern in _patterns(values))
        for operator, wanted in condition.items()
        for key, values in wanted.items()
    )


def _patterns(element: Any) -> list[str]:
    """Empty for what is no list of patterns."""
    patterns = [element] if isinstance(element, str) else element
    good = isinstance(patterns, list) and all(isinstance(pattern, str) and pattern for pattern in patterns)
    return patterns if good else []
