"""`wavelift agent`: the service beside the source's disks."""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl

from wavelift.agent.app import make_app, make_runner
from wavelift.agent.replicate import NAME
from wavelift.blocks.errors import SourceError
from wavelift.service.errors import InvalidRequest
from wavelift.service.server import configure_logging, listen, read_secret, serve
from wavelift.sources.base import Source
from wavelift.sources.choose import source_for
from wavelift.sources.qemu import QemuDisk, QemuGuest

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="port 0 picks a free one")
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="journals and block maps")
    parser.add_argument("--token-file", type=Path, required=True, metavar="FILE", help="the shared secret")
    parser.add_argument(
        "--disk",
        action="append",
        default=[],
        metavar="ID=SOURCE",
        help="image, device, nbd://... or qmp:SOCKET?node=NODE[&agent=SOCKET] to offer (repeatable)",
    )
    parser.add_argument("--connections", type=int, default=4, metavar="N", help="to the gateway, per job")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM. Raises `InvalidRequest` for unusable arguments, OSError."""
    configure_logging()
    sources = parse_disks(args.disk, args.state / "scratch")
    secret = read_secret(args.token_file)
    args.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    recover(sources)
    server = listen(args.listen)
    runner = make_runner(args.state, sources, args.connections)
    runner.start()
    return serve("agent", make_app(args.state, sources, runner, secret), server, runner.stop)


def recover(sources: Mapping[str, Source]) -> None:
    """What a killed agent left in a guest costs it space until it is taken down: so at once."""
    for guest in {source.guest for source in sources.values() if isinstance(source, QemuDisk)}:
        try:
            guest.recover()
        except SourceError as error:
            log.warning("guest at %s: %s", guest.monitor, error.message)


def parse_disks(values: list[str], scratch: Path) -> dict[str, Source]:
    """`ID=SOURCE` pairs; `scratch` is for live guests. Raises `InvalidRequest`, `SourceError`."""
    sources: dict[str, Source] = {}
    guests: dict[Path, QemuGuest] = {}
    for value in values:
        name, separator, text = value.partition("=")
        if not separator or not text or not re.match(NAME, name) or name in sources:
            raise InvalidRequest(
                f"--disk {value!r} is not a new ID=PATH.", "Write for example --disk sda=/images/web.raw."
            )
        sources[name] = _guest_disk(text, scratch, guests) if text.startswith("qmp:") else source_for(text)
    return sources


def _guest_disk(text: str, scratch: Path, guests: dict[Path, QemuGuest]) -> QemuDisk:
    """`qmp:SOCKET?node=NODE[&agent=SOCKET]`; disks with the same socket are of one guest."""
    path, _, query = text.removeprefix("qmp:").partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    node, agent = given.pop("node", ""), given.pop("agent", None)
    if not path or not node or given or agent == "":
        raise InvalidRequest(
            f"{text!r} does not name a disk of a guest.", "Write qmp:SOCKET?node=NODE, and &agent=SOCKET to freeze."
        )
    channel = None if agent is None else Path(agent)
    guest = guests.setdefault(Path(path), QemuGuest(Path(path), scratch, channel))
    if guest.agent != channel:
        raise InvalidRequest(f"{text!r} names another agent socket than an earlier disk.", "Give all disks the same.")
    return QemuDisk(guest, node)
