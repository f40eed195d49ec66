"""`wavelift prepare`: make the system on some disks boot on virtio; show what that would change; take it back."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from wavelift.manifest.wishes import Wishes
from wavelift.service.errors import InvalidRequest

EXAMPLES = """\
examples:
  wavelift prepare --plan web.img                what would change; nothing is written
  wavelift prepare web.img data.img              all disks of the machine, its boot disk first
  wavelift prepare --network web.yaml web.img    with static addresses of the target
  wavelift prepare --undo web.img data.img       everything as it was

DISK is a raw image or a block device, of a machine that is not running: a clone, never the only copy.
The file of --network is described in docs/guests.md.

exit status: 0 done, 1 refused or failed, 2 wrong usage, 128 + N after signal N
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("disks", metavar="DISK", nargs="+", type=Path, help="the boot disk first")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--plan", action="store_true", help="show what would change, and write nothing")
    what.add_argument("--undo", action="store_true", help="take the last preparation back")
    parser.add_argument(
        "--network", type=Path, metavar="FILE", help="YAML: addresses, hostname, first-boot scripts; default: all kept"
    )
    parser.add_argument(
        "--key", action="append", type=Path, default=[], metavar="FILE", help="passphrase of an encrypted volume"
    )
    parser.add_argument("--virtio-win", type=Path, metavar="FOLDER", help="drivers for Windows: virtio-win, unpacked")
    parser.add_argument("--json", action="store_true", help="progress and result as JSON, one object a line")


def run(args: argparse.Namespace) -> int:
    wishes = _read_wishes(args.network) if args.network else Wishes()
    command = [sys.executable, "-m", "wavelift.guest", "--wishes", *map(str, args.disks)]
    command += [f"--{name}" for name in ("plan", "undo") if getattr(args, name)]
    command += [word for key in args.key for word in ("--key", str(key))]
    command += ["--virtio-win", str(args.virtio_win)] if args.virtio_win else []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(wishes.model_dump_json())
        child.stdin.close()
        for line in _until_ended(child):
            if args.json:
                print(line, end="", flush=True)
            else:
                _show(json.loads(line))
    return child.returncode


def _until_ended(child: subprocess.Popen[str]) -> Iterator[str]:
    """An interrupt is for the child as well, which cleans up and says so."""
    assert child.stdout is not None
    while True:
        try:
            yield from child.stdout
            return
        except KeyboardInterrupt:
            continue


def _read_wishes(path: Path) -> Wishes:
    """Raises InvalidRequest, OSError."""
    try:
        return Wishes.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (ValidationError, yaml.YAMLError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = ".".join(map(str, first["loc"]))
        raise InvalidRequest(f"{path}: {where}: {first['msg']}." if where else f"{path}: {first['msg']}.", "") from None


def _show(event: dict[str, Any]) -> None:
    kind = event.pop("event")
    if kind == "progress":
        print(f"{event['fraction']:4.0%}  {event['step']}", file=sys.stderr)
    elif kind == "error":
        print(f"error: {event['message']}\n{event['remedy']}", file=sys.stderr)
    else:
        print(_text(kind, event))


def _text(kind: str, about: dict[str, Any]) -> str:
    lines = []
    if kind != "undone":
        kernels = f", kernels {', '.join(about['kernels'])}" if about["kernels"] else ""
        lines += [f"{about['os']}, boots by {about['firmware'].upper()}{kernels}", ""]
    said = {"plan": "would change", "report": "changed", "undone": "as it was"}[kind]
    for change in about["changes"]:
        lines.append(f"{said}  {change['path']}  ({change['reason']})")
        lines += [f"    {line}" for line in change["diff"].splitlines()]
    if not about["changes"]:
        lines.append("nothing to change: it is prepared")
    lines += [f"shown    {check['name']}: {check['evidence']}" for check in about.get("checks", [])]
    lines += [f"warning  {warning}" for warning in about.get("warnings", [])]
    if kind == "report":
        lines += ["", f"prepared in {about['seconds']:.0f} s"]
    return "\n".join(lines)
