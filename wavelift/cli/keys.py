"""Keys of archives on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from wavelift.archive.keys import KeyOf, derived, read_master


def add_key_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key-file",
        type=Path,
        metavar="FILE",
        help="the key that seals archives, as `openssl rand -hex 32` makes it",
    )


def key_of(args: argparse.Namespace) -> KeyOf | None:
    """None without --key-file. Raises `BadKey`."""
    return None if args.key_file is None else derived(read_master(args.key_file))
