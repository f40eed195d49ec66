"""`wavelift agent`: the service beside the source's disks."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from wavelift.agent.app import make_app, make_runner
from wavelift.agent.replicate import NAME
from wavelift.service.errors import InvalidRequest
from wavelift.service.server import configure_logging, listen, read_secret, serve
from wavelift.sources.base import Source
from wavelift.sources.choose import source_for


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="port 0 picks a free one")
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="journals and block maps")
    parser.add_argument("--token-file", type=Path, required=True, metavar="FILE", help="the shared secret")
    parser.add_argument(
        "--disk",
        action="append",
        default=[],
        metavar="ID=PATH",
        help="image, device or nbd:// to offer (repeatable)",
    )
    parser.add_argument("--connections", type=int, default=4, metavar="N", help="to the gateway, per job")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM. Raises `InvalidRequest` for unusable arguments, OSError."""
    configure_logging()
    sources = parse_disks(args.disk)
    secret = read_secret(args.token_file)
    args.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    server = listen(args.listen)
    runner = make_runner(args.state, sources, args.connections)
    runner.start()
    return serve("agent", make_app(args.state, sources, runner, secret), server, runner.stop)


def parse_disks(values: list[str]) -> dict[str, Source]:
    """`ID=PATH` pairs. Raises `InvalidRequest`."""
    sources: dict[str, Source] = {}
    for value in values:
        name, separator, path = value.partition("=")
        if not separator or not path or not re.match(NAME, name) or name in sources:
            raise InvalidRequest(
                f"--disk {value!r} is not a new ID=PATH.", "Write for example --disk sda=/images/web.raw."
            )
        sources[name] = source_for(path)
    return sources
