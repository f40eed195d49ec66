"""`python -m wavelift.guest DISK [DISK...]`: prepare a guest; one JSON object per line, the last is the outcome."""

import argparse
import json
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wavelift.guest.appliance import kill_children
from wavelift.guest.errors import Cancelled, GuestError
from wavelift.guest.prepare import prepare, undo
from wavelift.guest.wishes import Wishes

_TERMINATED = 128 + signal.SIGTERM


def emit(event: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m wavelift.guest", description=__doc__)
    parser.add_argument(
        "disks", type=Path, nargs="+", metavar="DISK", help="raw image or block device, boot disk first"
    )
    parser.add_argument("--undo", action="store_true", help="take the last preparation back")
    arguments = parser.parse_args()
    disks: list[Path] = arguments.disks
    for disk in disks:
        if not disk.exists():
            emit("error", code="no_such_disk", message=f"{disk} is not there", remedy="check that it is attached")
            return 1
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    outcome: list[int] = []
    # A call into the appliance cannot be interrupted: it runs beside the thread that takes the signals, and
    # ends with an error when its QEMU does.
    worker = threading.Thread(target=lambda: outcome.append(_work(disks, stop, undo_it=arguments.undo)))
    worker.start()
    while worker.is_alive():
        worker.join(0.2)
        if stop.is_set():
            kill_children()
    if not outcome:
        emit("error", code="internal", message="the preparation broke off", remedy="see its log and report it")
        return 1
    return outcome[0]


def _work(disks: list[Path], stop: threading.Event, *, undo_it: bool) -> int:
    def progress(step: str, fraction: float) -> None:
        if stop.is_set():
            raise Cancelled("told to stop", "prepare a new clone")
        emit("progress", step=step, fraction=fraction)

    try:
        if undo_it:
            emit("undone", changes=[asdict(change) for change in undo(disks, progress)])
            return 0
        report = prepare(disks, Wishes(), progress)
    except GuestError as error:
        if stop.is_set():
            emit("error", **Cancelled("told to stop", "prepare a new clone").to_dict())
            return _TERMINATED
        emit("error", **error.to_dict())
        return 1
    emit("report", **report.to_dict())
    return 0


if __name__ == "__main__":
    sys.exit(main())
