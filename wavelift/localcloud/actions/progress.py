"""How far something is: by the clock, and not 100% before it is done."""

import math
import time

from wavelift.localcloud.entities import Moving


def progress(entity: Moving, done: bool) -> str:
    if done:
        return "100%"
    if entity.busy is None:
        return "0%"
    whole = max(entity.busy.due - entity.busy.started, 0.001)
    part = (time.time() - entity.busy.started) / whole
    return f"{max(0, min(99, int(part * 100)))}%"


def remaining(entity: Moving) -> int:
    """Seconds; 0 when nothing is under way."""
    return max(1, math.ceil(entity.busy.due - time.time())) if entity.busy is not None else 0
