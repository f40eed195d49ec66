"""Names of instances: what they may be, and how those of one order are numbered."""

import re

from wavelift.localcloud.errors import ApiError

_NAME = re.compile(r"[^\W\d_][\w.:-]{1,127}")
_HOST_NAME = re.compile(r"(?![.-])(?!.*[.-]{2})[A-Za-z0-9.-]{2,64}(?<![.-])")
_NUMBERED = re.compile(r"(?P<before>.*)\[(?P<first>[0-9]{0,6}),(?P<digits>[1-6]?)\](?P<after>.*)")
_LAST = 999_999
_SUFFIX = 3


def check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name.startswith(("http://", "https://")):
        raise ApiError("InvalidInstanceName.Malformed", f"The specified InstanceName {name!r} is wrongly formed.")


def check_host_name(name: str) -> None:
    if not _HOST_NAME.fullmatch(name):
        raise ApiError("InvalidHostName.Malformed", f"The specified HostName {name!r} is wrongly formed.")


def numbered(name: str, amount: int, suffix: bool, exceeded: str) -> list[str]:
    """`web-[1,3]-a` counts from 1 with three digits; else a suffix of three digits, if it is wanted."""
    if match := _NUMBERED.fullmatch(name):
        first, digits = int(match["first"] or 0), int(match["digits"] or 6)
        if first + amount - 1 > min(_LAST, 10**digits - 1):
            digits = 6
        return [f"{match['before']}{first + n:0{digits}d}{match['after']}" for n in range(amount)]
    if not name or not suffix or amount == 1:
        return [name] * amount
    if len(name) > (128 if exceeded.startswith("Instance") else 64) - _SUFFIX:
        raise ApiError(f"InvalidParams.{exceeded}", "The suffix takes three characters: shorten the name.", 403)
    return [f"{name}{n:0{_SUFFIX}d}" for n in range(1, amount + 1)]
