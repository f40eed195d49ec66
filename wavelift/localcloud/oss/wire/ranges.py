"""Which bytes a Range header asks for."""

import re

from wavelift.localcloud.oss.errors import OssError

_RANGE = re.compile(r"bytes=([0-9]{0,19})-([0-9]{0,19})(?:,.*)?")


def parse_range(header: str, size: int, standard: bool) -> tuple[int, int] | None:
    """First and last byte, or None for all of it. Of several ranges the first counts.

    OSS gives the whole object where a range goes beyond its end, unless `x-oss-range-behavior: standard` is asked for.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or not any(match.groups()):
        return None
    begin, end = match.groups()
    if not begin:
        first, last = size - int(end), size - 1
    else:
        first, last = int(begin), int(end) if end else size - 1
        if end and last < first:
            return None
    inside = 0 <= first <= last < size
    if inside:
        return first, last
    if not standard:
        return None
    if not size or first >= size or (not begin and not int(end)):
        raise OssError("InvalidRange", ActualObjectSize=str(size), RangeRequested=header)
    return max(first, 0), min(last, size - 1)


def parse_span(header: str) -> tuple[int, int] | None:
    """The range of a part that is copied: both ends, or nothing for the whole object."""
    if not header:
        return None
    match = _RANGE.fullmatch(header.strip())
    if match is None or not all(match.groups()):
        raise OssError("InvalidArgument", ArgumentName="copy-source-range", ArgumentValue=header)
    return int(match[1]), int(match[2])
