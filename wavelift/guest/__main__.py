"""`python -m wavelift.guest DISK [DISK...]`: prepare a guest; one JSON object per line, the last is the outcome."""

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from wavelift.guest.appliance import kill_children
from wavelift.guest.errors import GuestError
from wavelift.guest.prepare import prepare

_TERMINATED = 128 + signal.SIGTERM


def emit(event: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m wavelift.guest", description=__doc__)
    parser.add_argument(
        "disks", type=Path, nargs="+", metavar="DISK", help="raw image or block device, boot disk first"
    )
    disks: list[Path] = parser.parse_args().disks
    for disk in disks:
        if not disk.exists():
            emit("error", code="no_such_disk", message=f"{disk} is not there", remedy="check that it is attached")
            return 1
    outcome: list[int] = []
    # A call into the appliance cannot be interrupted: it runs beside the thread that takes the signals.
    worker = threading.Thread(target=lambda: outcome.append(_work(disks)), daemon=True)
    signal.signal(signal.SIGTERM, _terminate)
    worker.start()
    worker.join()
    return outcome[0] if outcome else 1


def _work(disks: list[Path]) -> int:
    try:
        report = prepare(disks, lambda step, fraction: emit("progress", step=step, fraction=fraction))
    except GuestError as error:
        emit("error", **error.to_dict())
        return 1
    emit("report", **report.to_dict())
    return 0


def _terminate(_number: int, _frame: FrameType | None) -> None:
    """The guest is left as it is: half-written names are temporary ones, and the clone is thrown away."""
    kill_children()
    emit("error", code="cancelled", message="told to stop", remedy="prepare a new clone")
    os._exit(_TERMINATED)


if __name__ == "__main__":
    sys.exit(main())
