"""The `wavelift` command: check manifests, and run the services."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

from wavelift import __version__
from wavelift.manifest.load import ManifestError, load
from wavelift.manifest.plan import plan
from wavelift.manifest.schema import Manifest

_SERVICES = {
    "agent": "reads the disks of a source and sends them",
    "gateway": "receives packs beside the volumes, verifies, prepares guests",
    "localcloud": "a cloud of its own: ECS over its wire protocol, on files and QEMU",
}


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 something is wrong with what was given, 2 wrong usage."""
    arguments = sys.argv[1:] if argv is None else argv
    # Only the service that is asked for is imported: each stands alone.
    if arguments and arguments[0] in _SERVICES:
        return _serve(arguments[0], arguments[1:])
    parser = argparse.ArgumentParser(prog="wavelift", description="Moves running servers to Alibaba Cloud.")
    parser.add_argument("--version", action="version", version=f"wavelift {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    validate = commands.add_parser("validate", help="check manifests; say what is wrong, where, and what is right")
    validate.add_argument("manifest", type=Path, nargs="+")
    planning = commands.add_parser("plan", help="what a manifest will create, in order")
    planning.add_argument("manifest", type=Path)
    for name, help_text in _SERVICES.items():
        commands.add_parser(name, help=help_text, add_help=False)
    given = parser.parse_args(arguments)
    try:
        status = _validate(given.manifest) if given.command == "validate" else _plan(given.manifest)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has seen enough (`| head`); what is left in the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _serve(name: str, arguments: list[str]) -> int:
    command = importlib.import_module(f"wavelift.{name}.command")
    parser = argparse.ArgumentParser(prog=f"wavelift {name}", description=_SERVICES[name])
    command.add_arguments(parser)
    return int(command.run(parser.parse_args(arguments)))


def _validate(paths: list[Path]) -> int:
    failed = False
    for path in paths:
        if (manifest := _load(path)) is None:
            failed = True
        else:
            print(f"{path}: ok, wave {manifest.wave} with {len(manifest.migrations)} migration(s)")
    return 1 if failed else 0


def _plan(path: Path) -> int:
    if (manifest := _load(path)) is None:
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


if __name__ == "__main__":
    sys.exit(main())
