"""The `wavelift` command. Each subcommand's module is imported only when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from dataclasses import dataclass
from typing import NoReturn

from wavelift import __version__
from wavelift.service.errors import Explained, explain


@dataclass(frozen=True)
class _Command:
    """Where a subcommand is: its module, and in there what declares its arguments and what runs it. Its help ends with
    `examples`, or what the module has under EXAMPLES."""

    help: str
    module: str
    arguments: str = "add_arguments"
    run: str = "run"
    examples: str | None = None


_AGENT_EXAMPLES = """\
examples:
  openssl rand -hex 32 > agent.secret
  wavelift agent --state /var/lib/wavelift --token-file agent.secret --listen 0.0.0.0:8442 --disk sda=/dev/sda

It prints its URL and the fingerprint of its certificate, which clients have to be told.
"""
_GATEWAY_EXAMPLES = """\
examples:
  openssl rand -hex 32 > gateway.key
  wavelift gateway --state /var/lib/wavelift --devices /dev/disk/by-id --key-file gateway.key --listen 0.0.0.0:8443

It prints its URL and the fingerprint of its certificate, which clients have to be told.
"""

_COMMANDS = {
    "copy": _Command("copy a disk to a file, a device or a gateway; whole, or what changed", "wavelift.cli.copy"),
    "restore": _Command(
        "write a generation of an archive to a file, a device or an NBD export", "wavelift.cli.restore"
    ),
    "map": _Command("write the block map of a disk, and print its root", "wavelift.cli.map"),
    "verify": _Command("compare two disks or block maps, and name what differs", "wavelift.cli.verify"),
    "prepare": _Command("make the system on disks boot on virtio; show first, take back", "wavelift.cli.prepare"),
    "offline": _Command("disks that travel: list, verify, export, import, format", "wavelift.cli.offline"),
    "validate": _Command(
        "check manifests; say what is wrong, where, and what is right",
        "wavelift.cli.manifests",
        "add_validate_arguments",
        "validate",
    ),
    "plan": _Command(
        "what a manifest will create, in order", "wavelift.cli.manifests", "add_plan_arguments", "show_plan"
    ),
    "agent": _Command(
        "serve: reads the disks of a source and sends them", "wavelift.agent.command", examples=_AGENT_EXAMPLES
    ),
    "gateway": _Command(
        "serve: receives packs beside the volumes, verifies, prepares guests",
        "wavelift.gateway.command",
        examples=_GATEWAY_EXAMPLES,
    ),
    "localcloud": _Command(
        "serve: a cloud of its own, ECS over its wire protocol, on files and QEMU", "wavelift.localcloud.command"
    ),
}


class _Parser(argparse.ArgumentParser):
    """Wrong usage is an object too where a program reads the rest as objects."""

    as_json = False

    def error(self, message: str) -> NoReturn:
        if self.as_json:
            told = {"code": "usage", "message": f"{message}.", "remedy": f"See {self.prog} --help."}
            print(json.dumps({"event": "error", **told}), flush=True)
            self.exit(2)
        super().error(message)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 something is wrong with what was given, 2 wrong usage.

    Those of copy, map and verify are in their help.
    """
    arguments = sys.argv[1:] if argv is None else argv
    name = arguments[0] if arguments else ""
    if name not in _COMMANDS:
        _usage().parse_args(arguments)
        return 2
    command = _COMMANDS[name]
    module = importlib.import_module(command.module)
    parser = _Parser(
        prog=f"wavelift {name}",
        description=command.help,
        epilog=command.examples or getattr(module, "EXAMPLES", None),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # @FILE stands for the arguments in it, one a line: a service's are kept so.
        fromfile_prefix_chars="@",
    )
    getattr(module, command.arguments)(parser)
    # Of the class: a command of a command has a parser of its own.
    _Parser.as_json = "--json" in arguments
    given = parser.parse_args(arguments[1:])
    try:
        status = int(getattr(module, command.run)(given))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has seen enough (`| head`); what is left in the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if not isinstance(error, Explained | OSError):
            raise
        _, message, remedy = explain(error)
        print(f"wavelift {name}: {message}\n{remedy}".rstrip(), file=sys.stderr)
        return 2
    return status


def _usage() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wavelift", description="Moves running servers to Alibaba Cloud.")
    parser.add_argument("--version", action="version", version=f"wavelift {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in _COMMANDS.items():
        commands.add_parser(name, help=command.help, add_help=False)
    return parser


if __name__ == "__main__":
    sys.exit(main())
