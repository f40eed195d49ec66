"""Reading rules from YAML (JSON is YAML): every error names file, line, field and remedy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from wavelift.localcloud.faults.rules import Rule

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Problem:
    file: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.field + ': ' if self.field else ''}{self.message}"


class RulesError(Exception):
    """Rules that cannot be used; `problems` holds every reason in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: problem.line)
        super().__init__("\n".join(map(str, self.problems)))


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rules: list[Rule]


def load(path: Path) -> list[Rule]:
    """Raises RulesError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RulesError([Problem(str(path), 1, "", f"cannot be read: {error}")]) from error
    return parse(text, str(path))


def parse(text: str, file: str) -> list[Rule]:
    """`rules: [...]`; `file` is the name that errors carry. Raises RulesError."""
    root = _compose(text, file)
    rules = _validate(_File, root, file).rules
    names = [rule.id for rule in rules]
    twice = [index for index, name in enumerate(names) if name and name in names[:index]]
    if twice:
        raise RulesError([_twice(file, root, index) for index in twice])
    return rules


def parse_rule(text: str, file: str) -> Rule:
    """One rule alone. Raises RulesError."""
    return _validate(Rule, _compose(text, file), file)


def _compose(text: str, file: str) -> yaml.MappingNode:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise RulesError(
            [Problem(file, mark.line + 1 if mark else 1, "", f"no valid YAML: {error.problem}")]
        ) from error
    except yaml.YAMLError as error:
        raise RulesError([Problem(file, 1, "", f"no valid YAML: {error}")]) from error
    except RecursionError as error:
        raise RulesError([Problem(file, 1, "", "is nested too deeply; no rule needs that")]) from error
    twice = list(_written_twice(root))
    if twice:
        raise RulesError([Problem(file, key.start_mark.line + 1, key.value, "is written twice") for key in twice])
    if not isinstance(root, yaml.MappingNode):
        raise RulesError([Problem(file, 1, "", "write a mapping that starts with `rules:`")])
    return root


def _validate(model: type[M], root: yaml.MappingNode, file: str) -> M:
    loader = yaml.SafeLoader("")
    try:
        data = loader.construct_document(root)
        return model.model_validate(data)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RulesError([Problem(file, line, "", f"no valid YAML: {error.problem}")]) from error
    except ValidationError as error:
        raise RulesError([_problem(file, root, details) for details in error.errors()]) from error
    except (ValueError, LookupError, AttributeError) as error:  # a month 13, or a tag that does not fit: no mark
        raise RulesError([Problem(file, 1, "", f"a value cannot be read: {error}")]) from error
    finally:
        loader.dispose()


def _problem(file: str, root: yaml.Node, details: ErrorDetails) -> Problem:
    node, field = _find(root, details["loc"])
    kind, context = details["type"], details.get("ctx", {})
    if kind == "missing":
        message = "is missing; add it"
    elif kind == "extra_forbidden":
        message = "there is no such field here; remove it or correct its name"
    elif kind == "union_tag_not_found":
        message = "`kind` is missing; add it"
    elif kind == "union_tag_invalid":
        message = f"there is no kind {context['tag']!r}; use one of {context['expected_tags']}"
    elif kind == "value_error":
        message = str(context["error"])
    else:
        message = f"{details['msg'][0].lower()}{details['msg'][1:]}, not {details['input']!r}; correct it"
    return Problem(file, node.start_mark.line + 1, field, message)


def _written_twice(root: yaml.Node | None) -> Iterator[yaml.Node]:
    """YAML would keep the last of them and say nothing."""
    left, known = [root], set()
    while left:
        node = left.pop()
        if id(node) in known:  # an alias
            continue
        known.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            left += node.value
        elif isinstance(node, yaml.MappingNode):
            left += [value for _, value in node.value]
            names = [str(key.value) for key, _ in node.value]
            yield from (key for n, (key, _) in enumerate(node.value) if names[n] in names[:n])


def _twice(file: str, root: yaml.Node, index: int) -> Problem:
    node, field = _find(root, ("rules", index, "id"))
    return Problem(file, node.start_mark.line + 1, field, "another rule has this id; give each its own")


def _find(root: yaml.Node, location: Sequence[str | int]) -> tuple[yaml.Node, str]:
    """The node at a location, or the last one on the way that the text has, and the way as a person writes it.

    Locations name the kind of a fault too, which is no level of the text.
    """
    node, field, mark = root, "", root
    for position, step in enumerate(location):
        if isinstance(step, int) and isinstance(node, yaml.SequenceNode) and step < len(node.value):
            node = mark = node.value[step]
            field += f"[{step}]"
            continue
        pair = _pair(node, step)
        if pair is not None:
            mark, node = pair
        elif position + 1 < len(location):
            continue
        field += f".{step}" if field else str(step)
    return mark, field


def _pair(node: yaml.Node, name: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(name):
                return key, value
    return None
