"""What ECS's own SDK knows of an action's parameters: their names, their types, which are required."""

import inspect
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from alibabacloud_ecs20140526 import models

from wavelift.localcloud.errors import invalid, missing

# What a value of each type looks like in a request.
PATTERNS: dict[type, re.Pattern[str]] = {
    int: re.compile(r"[+-]?[0-9]{1,19}"),
    float: re.compile(r"[+-]?[0-9]+(\.[0-9]+)?"),
    bool: re.compile("true|false", re.IGNORECASE),
}
_REQUIRED = re.compile(r"# This parameter is required\.\n(?:\s*#[^\n]*\n)*\s*self\.(\w+) = ")


@dataclass(frozen=True)
class Specification:
    required: tuple[str, ...]
    typed: Mapping[str, re.Pattern[str]]  # by name with N for every index: DataDisk.N.Size
    lists: frozenset[str]
    names: frozenset[str]  # of all, lists and their members too


def check(action: str, parameters: Mapping[str, str]) -> None:
    """Refuse what is missing or malformed. Parameters that the SDK does not know are ignored, as ECS ignores them."""
    specification = of(action)
    for name in specification.required:
        if not any(given == name or given.startswith(f"{name}.") for given, value in parameters.items() if value):
            raise missing(name)
    for name, value in parameters.items():
        general = _general(name, specification.lists) if "." in name else name
        pattern = specification.typed.get(general)
        if pattern is not None and value and not pattern.fullmatch(value):
            raise invalid(name)


def _general(name: str, lists: frozenset[str]) -> str:
    parts: list[str] = []
    for part in name.split("."):
        if ".".join(parts) in lists:
            if not re.fullmatch(r"[1-9][0-9]{0,3}", part):
                raise invalid(name)
            part = "N"
        parts.append(part)
    return ".".join(parts)


def has(action: str, name: str) -> bool:
    """Does the action have this parameter? Raises InvalidParameter for an index that is none."""
    specification = of(action)
    return _general(name, specification.lists) in specification.names


def known(action: str) -> bool:
    return hasattr(models, f"{action}Request")


@cache
def of(action: str) -> Specification:
    model = getattr(models, f"{action}Request")
    names = _names(model)
    required = tuple(names[field] for field in _REQUIRED.findall(inspect.getsource(model.__init__)))
    typed: dict[str, re.Pattern[str]] = {}
    lists: set[str] = set()
    flat = list(_flat(model))
    for name, kind in flat:
        if kind is list:
            lists.add(name)
        elif kind in PATTERNS:
            typed[name] = PATTERNS[kind]
    return Specification(required, typed, frozenset(lists), frozenset(name for name, _ in flat))


def _flat(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every parameter, however deep, with its type; for a list also the list itself."""
    names = _names(model)
    for field, kind in _kinds(model).items():
        name = prefix + names[field]
        if typing.get_origin(kind) is list:
            yield name, list
            name, kind = f"{name}.N", typing.get_args(kind)[0]
        if hasattr(kind, "to_map"):
            yield from _flat(kind, f"{name}.")
        else:
            yield name, kind


def _kinds(model: Any) -> dict[str, Any]:
    return typing.get_type_hints(model.__init__, {"main_models": models, "List": list, "Dict": dict, "Any": Any})


class _Inner:
    def __init__(self, field: str) -> None:
        self.field = field

    def to_map(self) -> str:
        return self.field


def _names(model: Any) -> dict[str, str]:
    """The name in a request of each field: the model itself writes it when asked for its map."""
    filled = model()
    for field, kind in _kinds(model).items():
        inner = typing.get_args(kind)[0] if typing.get_origin(kind) is list else kind
        value = _Inner(field) if hasattr(inner, "to_map") else field
        setattr(filled, field, [value] if typing.get_origin(kind) is list else value)
    return {(value[0] if isinstance(value, list) else value): name for name, value in filled.to_map().items()}
