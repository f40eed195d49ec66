"""`python -m wavelift.guest DISK [DISK...]`: prepare a guest; one JSON object per line, the last is the outcome."""

import argparse
import json
import signal
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wavelift.guest.appliance import kill_children
from wavelift.guest.errors import Cancelled, GuestError
from wavelift.guest.prepare import Order, plan, prepare, undo
from wavelift.manifest.wishes import Wishes

_TERMINATED = 128 + signal.SIGTERM
_REFUSED = 1
# Far more than any preparation takes: a kernel that stumbles over a guest's file system must not be waited for.
_LONGEST_SECONDS = 3600.0


def emit(event: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m wavelift.guest", description=__doc__)
    parser.add_argument(
        "disks", type=Path, nargs="+", metavar="DISK", help="raw image or block device, boot disk first"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--plan", action="store_const", dest="what", const="plan", help="write nothing")
    what.add_argument("--undo", action="store_const", dest="what", const="undo", help="take the last preparation back")
    parser.add_argument("--wishes", action="store_true", help="read what is wished for from standard input, as JSON")
    parser.add_argument("--key", action="append", type=Path, default=[], metavar="FILE", help="passphrase of a volume")
    parser.add_argument("--virtio-win", type=Path, metavar="FOLDER", help="drivers for Windows, unpacked")
    arguments = parser.parse_args()
    for path in (*arguments.disks, *arguments.key, *filter(None, [arguments.virtio_win])):
        if not path.exists():
            emit("error", code="no_such_disk", message=f"{path} is not there", remedy="check that it is attached")
            return _REFUSED
    try:
        wishes = Wishes.model_validate_json(sys.stdin.read()) if arguments.wishes else Wishes()
    except ValidationError as error:
        emit("error", code="invalid", message=f"the wishes: {error.errors()[0]['msg']}", remedy="see docs/guests.md")
        return _REFUSED
    return _run(Order(arguments.disks, wishes, arguments.key, arguments.virtio_win), arguments.what or "prepare")


def _run(order: Order, what: str) -> int:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    outcome: list[int] = []
    # A call into the appliance cannot be interrupted: it runs beside the thread that takes the signals, and
    # ends with an error when its QEMU does.
    worker = threading.Thread(target=lambda: outcome.append(_work(order, what, stop)))
    worker.start()
    deadline = time.monotonic() + _LONGEST_SECONDS
    while worker.is_alive():
        worker.join(0.2)
        if stop.is_set() or time.monotonic() > deadline:
            kill_children()
    if not outcome:
        emit("error", code="internal", message="the preparation broke off", remedy="see its log and report it")
        return _REFUSED
    return outcome[0]


def _work(order: Order, what: str, stop: threading.Event) -> int:
    def progress(step: str, fraction: float) -> None:
        if stop.is_set():
            raise Cancelled("told to stop", "prepare a new clone")
        emit("progress", step=step, fraction=fraction)

    try:
        if what == "undo":
            emit("undone", changes=[asdict(change) for change in undo(order, progress)])
        elif what == "plan":
            emit("plan", **plan(order, progress).to_dict())
        else:
            emit("report", **prepare(order, progress).to_dict())
    except GuestError as error:
        if stop.is_set():
            emit("error", **Cancelled("told to stop", "prepare a new clone").to_dict())
            return _TERMINATED
        emit("error", **error.to_dict())
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
