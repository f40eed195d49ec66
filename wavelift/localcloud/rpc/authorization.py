"""May this caller do this? Only the policy of a temporary key limits anybody."""

from collections.abc import Mapping

from wavelift.localcloud.accounts import Credential
from wavelift.localcloud.errors import ApiError
from wavelift.localcloud.policy import allows
from wavelift.localcloud.rpc.resources import touched


def check(caller: Credential, region: str, action: str, parameters: Mapping[str, str]) -> None:
    if caller.policy is None:
        return
    for resource in touched(action, parameters):
        if not allows(caller.policy, f"ecs:{action}", f"acs:ecs:{region}:{caller.account}:{resource}"):
            raise ApiError(
                "Forbidden.RAM",
                "User not authorized to operate on the specified resource, or this API doesn't support RAM.",
            )
