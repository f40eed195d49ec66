"""`wavelift offline export` and `import`: archives to disks that travel, and from them."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wavelift.archive.opening import parse_place
from wavelift.archive.transfer import Outcome, Transfer
from wavelift.cli.report import DIFFERENT, SAME, Watch, run_reporting
from wavelift.cli.units import duration, size
from wavelift.offline.planning import Plan, plan
from wavelift.stores.base import Full
from wavelift.stores.offline import OfflineStore

_SHOWN = 20
_AGAIN = "Repeat the command to go on: what is there already is not copied again."


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("place", metavar="PLACE", help="oss://..., s3://..., folder:DIR, offline:DIR[,DIR...]")
    parser.add_argument(
        "folders", metavar="DIR", nargs="+", type=Path, help="where a disk is mounted: of a set, or an empty one"
    )
    _add_check(parser, "disks")


def add_import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="where a disk of the set is mounted")
    parser.add_argument("place", metavar="PLACE", help="oss://..., s3://..., folder:DIR, offline:DIR[,DIR...]")
    _add_check(parser, "place")


def run_export(args: argparse.Namespace) -> int:
    def work(watch: Watch) -> int:
        watch.step("comparing")
        source = parse_place(args.place).store()
        target = OfflineStore.create(args.folders)
        transfer = _transfer(source, target, args, watch)
        pending = transfer.pending()
        planned = plan(pending.packs, target.disks, largest=pending.largest, on_each=pending.others)
        for share in planned.shares:
            watch.display.note(f"{share.label} takes {size(share.takes)} of the {size(share.room)} it has room for")
        if planned.lacking:
            raise Full(
                f"The disks lack room for {planned.lacking} bytes ({size(planned.lacking)}) of what is to be copied; "
                "nothing was.",
                "Add an empty disk to the set: name its folder too.",
            )
        return _run(transfer, watch, planned)

    return run_reporting(args.json, work, lambda: _AGAIN)


def run_import(args: argparse.Namespace) -> int:
    def work(watch: Watch) -> int:
        watch.step("comparing")
        source = OfflineStore(args.folders)
        for label in source.absent:
            watch.display.note(f"the disk {label} is missing: a generation with packs on it is not finished")
        return _run(_transfer(source, parse_place(args.place).store(create=True), args, watch), watch, None)

    return run_reporting(args.json, work, lambda: _AGAIN)


def _add_check(parser: argparse.ArgumentParser, where: str) -> None:
    parser.add_argument(
        "--check",
        action="store_true",
        help=f"read what is in the {where} already, and copy again what is damaged; without it names and sizes count",
    )


def _transfer(source: Any, target: Any, args: argparse.Namespace, watch: Watch) -> Transfer:
    def progress(total: int, done: int, copied: int) -> None:
        watch.progress(total=total, done=done, wire=copied, skipped=done - copied)

    return Transfer(source, target, anew=args.check, check=watch.check, progress=progress)


def _run(transfer: Transfer, watch: Watch, planned: Plan | None) -> int:
    began = time.monotonic()
    watch.step("copying")
    done = transfer.run()
    fields = {
        "copied_bytes": done.copied,
        "skipped_bytes": done.skipped,
        "objects": done.objects,
        "seconds": round(time.monotonic() - began, 3),
        "faults": [asdict(fault) for fault in done.faults],
        "withheld": [{"archive": prefix, "generation": number} for prefix, number in done.withheld],
        "plan": None if planned is None else [asdict(share) for share in planned.shares],
    }
    watch.display.result(fields, _text(done, time.monotonic() - began))
    return DIFFERENT if done.faults else SAME


def _text(done: Outcome, seconds: float) -> str:
    lines = [
        f"copied {size(done.copied)} in {done.objects} objects in {duration(seconds)}; "
        f"{size(done.skipped)} were there already"
    ]
    for fault in done.faults[:_SHOWN]:
        where = f" on {', '.join(fault.disks)}" if fault.disks else ""
        bytes_ = f" (bytes {fault.start} to {fault.end})" if fault.end else ""
        lines.append(f"  {fault.key}{where}: {fault.why}{bytes_}")
    if len(done.faults) > _SHOWN:
        lines.append(f"  and {len(done.faults) - _SHOWN} more; --json names all of them")
    for prefix, number in done.withheld:
        lines.append(f"not finished: generation {number}{f' of {prefix}' if prefix else ''}")
    return "\n".join(lines)
