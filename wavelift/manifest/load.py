"""Reading a manifest: every error names the file, the line, the column, the field and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from wavelift.manifest.schema import Manifest

Location = tuple[str | int, ...]
_MEANING = {
    "missing": "is missing",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "model_type": "must be a mapping of fields",
    "model_attributes_type": "must be a mapping of fields",
}


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a manifest; line and column count from 1."""

    file: str
    line: int
    column: int
    field: str
    message: str

    def __str__(self) -> str:
        field = f"{self.field}: " if self.field else ""
        return f"{self.file}:{self.line}:{self.column}: {field}{self.message}"


class ManifestError(Exception):
    """A manifest that cannot be used; `problems` holds every reason, in the order of the file."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems, key=lambda p: (p.line, p.column))
        super().__init__("\n".join(map(str, self.problems)))


def load(path: Path) -> Manifest:
    """Read and validate one manifest. Raises ManifestError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError([Problem(str(path), 1, 1, "", f"cannot be read: {error}")]) from error
    return parse(text, str(path))


def parse(text: str, file: str) -> Manifest:
    """Validate the text of a manifest; `file` is the name that errors carry. Raises ManifestError."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise ManifestError([Problem(file, line, column, "", f"no valid YAML: {error.problem}")]) from error
    except yaml.YAMLError as error:
        raise ManifestError([Problem(file, 1, 1, "", f"no valid YAML: {error}")]) from error
    if not isinstance(root, yaml.MappingNode):
        raise ManifestError([Problem(file, 1, 1, "", "a manifest is a mapping that starts with `version: 1`")])
    problems = [Problem(file, *mark, name, "is written twice") for name, mark in _duplicates(root, ())]
    if problems:
        raise ManifestError(problems)
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        raise ManifestError([_problem(file, root, details) for details in error.errors()]) from error


def _problem(file: str, root: yaml.Node, details: ErrorDetails) -> Problem:
    location = details["loc"]
    kind = details["type"]
    if kind == "extra_forbidden":
        message = _unknown(location)
    elif kind == "literal_error" or kind == "enum":
        message = f"must be {details['ctx']['expected']}, not {details['input']!r}"
    elif kind == "string_pattern_mismatch":
        message = f"{details['input']!r} may hold only lower-case letters, digits and dashes, 40 at most"
        if location[-1] == "id":
            message = f"{details['input']!r} may hold only letters, digits, dots, dashes and underscores, 64 at most"
    elif kind in _MEANING:
        message = _MEANING[kind] + _example(location)
    else:
        message = details["msg"].removeprefix("Value error, ")
    line, column = _mark(root, location)
    return Problem(file, line, column, _name(location), message)


def _unknown(location: Location) -> str:
    known = sorted(_fields_at(location[:-1]))
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"known here: {', '.join(known)}"
    return f"unknown field; {hint}"


def _example(location: Location) -> str:
    model = _model_at(location[:-1])
    field = _fields_of(model).get(str(location[-1])) if model else None
    return f" ({field.description})" if field and field.description else ""


def _model_at(location: Location) -> type[BaseModel] | None:
    model: type[BaseModel] = Manifest
    for step in location:
        if isinstance(step, int):
            continue
        field = _fields_of(model).get(step)
        inner = _model_in(field.annotation) if field else None
        if inner is None:
            return None
        model = inner
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (found := _model_in(argument)) is not None:
            return found
    return None


def _fields_at(location: Location) -> Mapping[str, FieldInfo]:
    model = _model_at(location)
    return _fields_of(model) if model else {}


def _fields_of(model: type[BaseModel]) -> Mapping[str, FieldInfo]:
    """By the names that a manifest uses: `from` is no name in Python."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _name(location: Location) -> str:
    name = ""
    for step in location:
        name += f"[{step}]" if isinstance(step, int) else f".{step}" if name else step
    return name


def _mark(node: yaml.Node, location: Location) -> tuple[int, int]:
    """Line and column of the key at `location`, or of the nearest thing above it that exists."""
    line, column = node.start_mark.line + 1, node.start_mark.column + 1
    for step in location:
        found: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(step):
                    line, column = key.start_mark.line + 1, key.start_mark.column + 1
                    found = value
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            found = node.value[step]
            line, column = found.start_mark.line + 1, found.start_mark.column + 1
        if found is None:
            break
        node = found
    return line, column


def _duplicates(node: yaml.Node, location: Location) -> list[tuple[str, tuple[int, int]]]:
    found: list[tuple[str, tuple[int, int]]] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            here = (*location, str(key.value))
            if key.value in seen:
                found.append((_name(here), (key.start_mark.line + 1, key.start_mark.column + 1)))
            seen.add(key.value)
            found += _duplicates(value, here)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            found += _duplicates(value, (*location, index))
    return found
