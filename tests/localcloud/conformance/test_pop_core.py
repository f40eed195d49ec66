"""npm's @alicloud/pop-core: requests of the older kind, by GET and by POST."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.localcloud.conftest import KEY, SECRET


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_pop_core(server: Any, run_node: Callable[..., Any], method: str) -> None:
    found = run_node("pop_core.js", endpoint=server.endpoint, key=KEY, secret=SECRET, method=method)
    assert found == {
        "sameDescription": True,
        "tags": [{"TagKey": "wave", "TagValue": "1"}, {"TagKey": "x y", "TagValue": "ö"}],
        "regions": ["cn-local"],
        "wrongSecret": refusal("SignatureDoesNotMatch", 400),
        "unknownKey": refusal("InvalidAccessKeyId.NotFound", 404),
        "unknownAction": refusal("InvalidAction.NotFound", 404),
        "missing": refusal("MissingParameter", 400),
        "oldVersion": refusal("InvalidVersion", 400),
    }


def refusal(code: str, status: int) -> dict[str, Any]:
    return {"name": f"{code}Error", "code": code, "status": status}
