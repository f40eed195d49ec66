"""`wavelift offline format`: an empty file system on a disk that is to travel."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from wavelift.cli.report import SAME, Watch, run_reporting
from wavelift.offline.formatting import format_disk


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE", type=Path, help="disk or partition; refused when it is in use")
    parser.add_argument("--label", required=True, help="what is written on it; at most 16 characters")
    parser.add_argument(
        "--erase", metavar="NAME", help="the label, serial or id of what is on it, typed back: all of that is lost"
    )


def run(args: argparse.Namespace) -> int:
    def work(watch: Watch) -> int:
        watch.step("formatting")
        made = format_disk(args.device, args.label, args.erase)
        watch.display.result(
            {"device": str(args.device), **asdict(made), "file_system": "ext4"},
            f"{args.device} is the disk {made.label} now (ext4). Mount it, and give its folder to export.",
        )
        return SAME

    return run_reporting(args.json, work, lambda: "If it had begun, the device holds nothing useful: repeat it.")
