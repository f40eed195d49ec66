"""`wavelift offline`: disks that travel. What they hold, whether it is sound, filling them, and unloading them."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from wavelift.cli import offline_check, offline_format, offline_list, offline_transfer

EXAMPLES = """\
examples:
  wavelift offline format /dev/sdb --label WL-web-01      an empty disk becomes one that can travel
  wavelift offline export oss://backup/web /mnt/a /mnt/b  every archive there, spread over two disks
  wavelift offline list /mnt/a /mnt/b                     what is on them, and which disks are missing
  wavelift offline verify /mnt/a /mnt/b                   read everything; name what is damaged
  wavelift offline import /mnt/a /mnt/b s3://backup/web   from the disks to a bucket, at another site

PLACE is oss://BUCKET/PREFIX, s3://BUCKET/PREFIX (credentials from the environment), folder:DIR or
offline:DIR[,DIR...]; DIR is where a disk is mounted. No key is needed: what is sealed stays sealed.
`wavelift offline COMMAND --help` tells more. All about it is in docs/offline.md.

exit status: 0 done, 1 something is damaged or missing, 2 wrong usage or failed, 128 + N after signal N
"""

_COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]] = {
    "list": ("sets, disks, archives and generations; no key needed", offline_list.add_arguments, offline_list.run),
    "verify": ("read everything, and name what is damaged or missing", offline_check.add_arguments, offline_check.run),
    "export": (
        "from any place of archives to disks",
        offline_transfer.add_export_arguments,
        offline_transfer.run_export,
    ),
    "import": (
        "from disks to any place of archives",
        offline_transfer.add_import_arguments,
        offline_transfer.run_import,
    ),
    "format": ("make an empty file system on a disk", offline_format.add_arguments, offline_format.run),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (about, arguments, run_it) in _COMMANDS.items():
        command = commands.add_parser(name, help=about, description=about)
        arguments(command)
        command.add_argument("--json", action="store_true", help="progress and result as JSON, one object a line")
        command.set_defaults(run_it=run_it)


def run(args: argparse.Namespace) -> int:
    return int(args.run_it(args))
