"""Which function answers which action."""

from collections.abc import Callable
from typing import Any

from wavelift.localcloud.errors import ApiError
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.rpc.parameters import Parameters

Reply = dict[str, Any]
Action = Callable[[Cloud, Parameters], Reply]

ACTIONS: dict[str, Action] = {}


def action(name: str) -> Callable[[Action], Action]:
    def register(function: Action) -> Action:
        ACTIONS[name] = function
        return function

    return register


def lookup(name: str) -> Action:
    if name not in ACTIONS:
        raise ApiError("InvalidAction.NotFound", "Specified api is not found, please check your url and method.", 404)
    return ACTIONS[name]
