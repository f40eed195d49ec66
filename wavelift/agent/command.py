"""`wavelift agent`: the service beside the source's disks."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from wavelift.agent.app import make_app, make_runner
from wavelift.agent.specs import NAME
from wavelift.blocks.limits import Limits
from wavelift.blocks.meter import WireMeter
from wavelift.service.errors import InvalidRequest
from wavelift.service.limits import add_limits, apply_limits
from wavelift.service.logs import add_log_format, configure_logging
from wavelift.service.server import add_metrics_token, add_plaintext, listen, read_secret, serve
from wavelift.service.state import own_state
from wavelift.service.tls import service_identity
from wavelift.sources.base import Source
from wavelift.sources.choose import Guests, source_for
from wavelift.sources.together import recover_all

MEMORY_MIB = 1024
# More than fill any link; a gateway takes 256 of all its senders.
MAX_CONNECTIONS = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="port 0 picks a free one")
    parser.add_argument(
        "--state", type=Path, required=True, metavar="DIR", help="journals, block maps, key and certificate"
    )
    parser.add_argument("--token-file", type=Path, required=True, metavar="FILE", help="the shared secret")
    parser.add_argument(
        "--disk",
        action="append",
        default=[],
        metavar="ID=SOURCE",
        help="image, device, nbd://... or qmp:SOCKET?node=NODE[&agent=SOCKET] to offer (repeatable)",
    )
    parser.add_argument("--connections", type=connections, default=5, metavar="N", help="to the gateway, per job")
    add_plaintext(parser)
    add_limits(parser, MEMORY_MIB)
    add_log_format(parser)
    add_metrics_token(parser)


def connections(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MAX_CONNECTIONS:
        raise argparse.ArgumentTypeError(f"{value} is not in 1 to {MAX_CONNECTIONS}")
    return value


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM. Raises `InvalidRequest` for unusable arguments, OSError."""
    configure_logging(args.log_format)
    apply_limits(args.full_priority, args.max_memory)
    with own_state(args.state):
        return _serve(args)


def _serve(args: argparse.Namespace) -> int:
    sources = parse_disks(args.disk, args.state / "scratch")
    secret = read_secret(args.token_file)
    scraper = None if args.metrics_token_file is None else read_secret(args.metrics_token_file)
    # What a killed agent left on a host costs it space until it is taken down: so at once.
    recover_all(sources.values())
    identity = None if args.plaintext else service_identity(args.state)
    limits = Limits(args.state / "limits.json")
    server = listen(args.listen)
    wire = WireMeter()
    runner = make_runner(args.state, sources, limits, args.connections, wire)
    runner.start()
    return serve(
        "agent", make_app(args.state, sources, limits, runner, secret, wire, scraper), server, runner.stop, identity
    )


def parse_disks(values: list[str], scratch: Path) -> dict[str, Source]:
    """`ID=SOURCE` pairs; `scratch` is for live guests. Raises `InvalidRequest`, `SourceError`."""
    sources: dict[str, Source] = {}
    guests = Guests(scratch)
    for value in values:
        name, separator, text = value.partition("=")
        if not separator or not text or not re.match(NAME, name) or name in sources:
            raise InvalidRequest(
                f"--disk {value!r} is not a new ID=PATH.", "Write for example --disk sda=/images/web.raw."
            )
        sources[name] = source_for(text, guests=guests)
    return sources
