"""One table of error codes: what the code raises by name is in it, and nothing else is."""

import ast
from collections.abc import Iterator
from pathlib import Path

from wavelift import localcloud
from wavelift.localcloud.errors import _CODES, STATUS

ROOT = Path(localcloud.__file__).parent


def raised() -> Iterator[tuple[str, ast.Call]]:
    """Every ApiError(...) of the package whose code is written out."""
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ApiError":
                code = node.args[0]
                if isinstance(code, ast.Constant) and isinstance(code.value, str):
                    yield f"{path.name}:{node.lineno}: {code.value}", node


def codes_in_text() -> set[str]:
    found = set()
    for path in ROOT.rglob("*.py"):
        if path.name != "errors.py":
            found |= {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
    return {each for each in found if isinstance(each, str)}


def test_every_code_is_in_the_table_and_nobody_else_says_its_status() -> None:
    calls = dict(raised())
    assert len(calls) > 100
    assert [place for place, call in calls.items() if place.rpartition(" ")[2] not in STATUS] == []
    assert [place for place, call in calls.items() if len(call.args) + len(call.keywords) > 2] == []


def test_the_table_has_each_code_once_and_no_code_that_nobody_answers() -> None:
    assert len(STATUS) == sum(len(codes) for codes in _CODES.values())
    own = {place.rpartition(" ")[2] for place, _ in raised()}
    assert set(STATUS) - own - codes_in_text() == set()
