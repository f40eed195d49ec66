"""Which function answers which action."""

from collections.abc import Callable
from typing import Any

from wavelift.localcloud.errors import unknown_action
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
        raise unknown_action()
    return ACTIONS[name]
