"""What a session policy lets a temporary key do: the RAM policy language, without conditions."""

import json
from collections.abc import Mapping
from typing import Any

from wavelift.localcloud.wildcards import matches

_STATEMENT = {"Effect", "Action", "Resource"}


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
        if not isinstance(statement, dict) or set(statement) != _STATEMENT:
            raise MalformedPolicy("a statement has Effect, Action and Resource")
        if statement["Effect"] not in {"Allow", "Deny"}:
            raise MalformedPolicy("an effect is Allow or Deny")
        if not all(_patterns(statement[element]) for element in ("Action", "Resource")):
            raise MalformedPolicy("an action or a resource is a text or a list of texts")
    return document


def allows(policy: Mapping[str, Any] | None, action: str, *names: str) -> bool:
    """May the holder do `action` (ecs:CreateDisk) to what goes by `names` (acs:ecs:cn-local:1:disk/d-1)?

    No policy limits nothing.
    """
    if policy is None:
        return True
    effects = {
        statement["Effect"]
        for statement in policy["Statement"]
        if any(matches(pattern.lower(), action.lower()) for pattern in _patterns(statement["Action"]))
        and any(matches(pattern, name) for pattern in _patterns(statement["Resource"]) for name in names)
    }
    return effects == {"Allow"}


def _patterns(element: Any) -> list[str]:
    """Empty for what is no list of patterns."""
    patterns = [element] if isinstance(element, str) else element
    good = isinstance(patterns, list) and all(isinstance(pattern, str) and pattern for pattern in patterns)
    return patterns if good else []
