"""`wavelift validate` and `wavelift plan`: what a manifest says, and what it will do."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from wavelift.manifest.load import ManifestError, load
from wavelift.manifest.plan import plan
from wavelift.manifest.schema import Manifest


def add_validate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, nargs="+")


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path)


def validate(args: argparse.Namespace) -> int:
    failed = False
    for path in args.manifest:
        if (manifest := _load(path)) is None:
            failed = True
        else:
            print(f"{path}: ok, wave {manifest.wave} with {len(manifest.migrations)} migration(s)")
    return 1 if failed else 0


def show_plan(args: argparse.Namespace) -> int:
    if (manifest := _load(args.manifest)) is None:
        return 1
    for name, actions in plan(manifest).items():
        print(f"{manifest.wave}/{name}")
        for action in actions:
            print(f"  {action.step:<17} {action.action}{'  [kept]' if action.kept else ''}")
    return 0


def _load(path: Path) -> Manifest | None:
    try:
        return load(path)
    except ManifestError as error:
        print(error, file=sys.stderr)
        return None
