"""May this caller do this? Only the policy of a temporary key limits anybody."""

import re
from collections.abc import Mapping

from wavelift.localcloud.accounts import Credential
from wavelift.localcloud.errors import forbidden
from wavelift.localcloud.policy import allows

_KINDS = {
    "Disk": "disk",
    "Image": "image",
    "Instance": "instance",
    "SecurityGroup": "securitygroup",
    "Snapshot": "snapshot",
}
_KIND = "|".join(_KINDS)
_ID = re.compile(rf"({_KIND})Id(\.[0-9]+)?")
_ABOUT = re.compile(rf"[A-Z][a-z]+({_KIND})(s|Attribute|Status)?")


def check(caller: Credential, region: str, action: str, parameters: Mapping[str, str]) -> None:
    if caller.policy is None:
        return
    for resource in _resources(action, parameters):
        if not allows(caller.policy, f"ecs:{action}", f"acs:ecs:{region}:{caller.account}:{resource}"):
            raise forbidden(
                "Forbidden.RAM",
                "User not authorized to operate on the specified resource, or this API doesn't support RAM.",
            )


def _resources(action: str, parameters: Mapping[str, str]) -> list[str]:
    """Those that are named one by one, or else all of the kind that the action is about, or else all."""
    named = [f"{_KINDS[match[1]]}/{id}" for name, id in parameters.items() if (match := _ID.fullmatch(name))]
    if named:
        return named
    about = _ABOUT.fullmatch(action)
    return [f"{_KINDS[about[1]]}/*" if about else "*"]
