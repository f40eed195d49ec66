"""`wavelift gateway`: the service beside the volumes."""

from __future__ import annotations

import argparse
from pathlib import Path

from wavelift.blocks.limits import Limits
from wavelift.gateway.app import make_app, make_runner
from wavelift.gateway.data import DataServer
from wavelift.gateway.readbacks import ReadBacks
from wavelift.gateway.volumes import Volumes
from wavelift.service.errors import InvalidRequest
from wavelift.service.limits import add_limits, apply_limits
from wavelift.service.logs import add_log_format, configure_logging
from wavelift.service.server import add_metrics_token, add_plaintext, listen, read_secret, serve
from wavelift.service.state import own_state
from wavelift.service.tls import service_identity
from wavelift.service.tokens import check_key

# The stacks of as many connections as there may be count as 2 GiB.
MEMORY_MIB = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="port 0 picks a free one")
    parser.add_argument(
        "--data-listen", metavar="HOST:PORT", help="where packs are taken (default: same host, a free port)"
    )
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="the jobs, key and certificate")
    parser.add_argument(
        "--devices", type=Path, required=True, metavar="DIR", help="folder of virtio-SERIAL links to volumes"
    )
    parser.add_argument("--key-file", type=Path, required=True, metavar="FILE", help="the key of the tokens")
    parser.add_argument(
        "--virtio-win", type=Path, metavar="DIR", help="drivers for Windows guests: virtio-win, unpacked"
    )
    add_plaintext(parser)
    add_limits(parser, MEMORY_MIB)
    add_log_format(parser)
    add_metrics_token(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM. Raises `InvalidRequest` for unusable arguments, OSError."""
    configure_logging(args.log_format)
    apply_limits(args.full_priority, args.max_memory)
    with own_state(args.state):
        return _serve(args)


def _serve(args: argparse.Namespace) -> int:
    if not args.devices.is_dir():
        raise InvalidRequest(f"{args.devices} is not a folder.", "Give the folder of the attached devices.")
    if args.virtio_win is not None and not args.virtio_win.is_dir():
        raise InvalidRequest(f"{args.virtio_win} is not a folder.", "Give the folder that virtio-win is unpacked in.")
    key = check_key(read_secret(args.key_file))
    scraper = None if args.metrics_token_file is None else read_secret(args.metrics_token_file)
    identity = None if args.plaintext else service_identity(args.state)
    server = listen(args.listen)
    readbacks = ReadBacks(args.state / "readbacks")
    volumes = Volumes(args.devices, args.state / "owners", readbacks)
    same_host = args.listen.rpartition(":")[0] + ":0"
    limits = Limits(args.state / "limits.json")
    data = DataServer(listen(args.data_listen or same_host), volumes, limits.all, key, identity)
    data.start()
    runner = make_runner(args.state, volumes, readbacks, limits.all, args.virtio_win)
    runner.start()

    def stop() -> None:
        data.shutdown()
        runner.stop()

    app = make_app(volumes, readbacks, limits, runner, data, key, scraper)
    return serve("gateway", app, server, stop, identity)
