"""`wavelift copy`: one disk to a file, a device, a gateway's volume or an archive."""

from __future__ import annotations

import argparse
import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wavelift.agent.replication import Order, Target, replicate
from wavelift.archive.keys import KeyOf
from wavelift.archive.opening import SCHEMES, parse_place
from wavelift.blocks.bandwidth import Bandwidth
from wavelift.blocks.compress import MAX_LEVEL, Compression
from wavelift.blocks.errors import BlockError, MapError
from wavelift.blocks.memory import MemoryBudget
from wavelift.blocks.plan import Intervals
from wavelift.blocks.rate import InvalidRate, parse_rate
from wavelift.blocks.throttle import Flow, Throttle
from wavelift.cli.archive_target import ArchiveTarget
from wavelift.cli.copystate import CopyState, StateUnusable, Subject, kept, passing
from wavelift.cli.footing import Ranges
from wavelift.cli.keys import add_key_file, key_of
from wavelift.cli.report import DIFFERENT, SAME, Watch, run_reporting
from wavelift.cli.summary import Summary
from wavelift.cli.tables import path_of
from wavelift.cli.targets import Destination, LocalTarget, TargetRefused
from wavelift.service.errors import explain
from wavelift.sources.base import Source
from wavelift.sources.choose import source_for
from wavelift.sources.qemu import QemuDisk
from wavelift.sources.together import Described

DISK = "source"
# For packs under way: two of the largest, which those of a folder's archive are.
BUFFERS = 32 << 20
EXAMPLES = """\
examples:
  wavelift copy disk.raw copy.raw                              a full copy; holes stay holes
  wavelift copy --verify full --overwrite disk.qcow2 /dev/sdb  to a device, read back and compared
  wavelift copy --state web.state nbd://10.0.0.5:10809 web.raw
                                     repeat the command after a failure: it goes on where it was
  wavelift copy --since web.state --bitmap b0 nbd://10.0.0.5:10809 web.raw
                                     what changed since that copy: by its bitmap only that is read
  wavelift copy --limit 50M --token-file write.token --fingerprint 3F:A1:... disk.raw https://10.0.0.9:8443/d-2ze1
                                     to a volume of a gateway, over TLS, at 50 MB a second
  wavelift copy --state web.state disk.raw folder:/backup/web
                                     one more generation in an archive; as SOURCE it is the newest
  wavelift copy --key-file archive.key disk.raw oss://backups/web
                                     the same in a bucket (s3:// too), sealed; credentials from the environment

A state keeps what is known of source and target: the digests, the moment that was copied, how far the copy came.
Without --state or --since it is temporary (in $TMPDIR, else /var/tmp).

exit status: 0 done, 1 the target does not hold what was sent (--verify names where), 2 wrong usage or failed,
128 + N after signal N
"""

_REMEDIES = {
    "sink_unauthorized": "Give a token that is valid and names this volume: --token-file.",
    "wrong_fingerprint": "If the gateway was set up anew, give the --fingerprint that it prints when it starts; if it "
    "was not, somebody stands in between.",
    "sink_unreachable": "Check its address, and that it runs.",
    "source_changed": "Stop what writes to it.",
    "stale_generation": "Another copy has written to the volume since: see to it that only one does.",
}
# What some other place takes, and none here.
_NO_TARGET = ("raw:", "qcow2:", "qmp:", "nbd:", "nbds:", "nbd+unix:", "nbds+unix:", "file:")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="file (raw or qcow2), block device, nbd://..., nbds://..., qmp:SOCKET?node=NODE[&agent=SOCKET], "
        "folder:DIR, offline:DIR[,DIR...], oss://BUCKET/PREFIX, s3://BUCKET/PREFIX, each with [@GENERATION]",
    )
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="file, block device, https://HOST:PORT/VOLUME of a gateway, folder:DIR, offline:DIR[,DIR...], "
        "oss://BUCKET/PREFIX, s3://BUCKET/PREFIX",
    )
    state = parser.add_mutually_exclusive_group()
    state.add_argument("--state", type=Path, metavar="DIR", help="full copy that can go on, and can be followed up")
    state.add_argument("--since", type=Path, metavar="DIR", help="only what changed since the copy of that state")
    parser.add_argument(
        "--bitmap", metavar="NAME", help="with --since: the dirty bitmap of an NBD export or qcow2 image"
    )
    parser.add_argument("--limit", type=_rate, metavar="RATE", help="of what is sent: 50M is 50 million bytes a second")
    parser.add_argument("--compress", type=_compression, metavar="auto|off|zstd:N", help="of what is sent (auto)")
    parser.add_argument("--verify", choices=("full", "sample"), help="read the target back: all, or a random sample")
    parser.add_argument("--overwrite", action="store_true", help="the target may be a device, or a file with content")
    parser.add_argument(
        "--token-file",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a gateway's write token; a second one, with the control token, for --verify",
    )
    add_key_file(parser)
    parser.add_argument("--plain", action="store_true", help="an archive is not sealed; a folder's is only with a key")
    parser.add_argument("--fingerprint", default="", metavar="SHA256", help="of the gateway's certificate")
    parser.add_argument("--json", action="store_true", help="progress and result as JSON, one object a line")


def run(args: argparse.Namespace) -> int:
    where = args.state or args.since
    again = "Repeat the command to go on." if where else "Nothing of it is kept: --state DIR lets a copy go on."
    remedies = {code: f"{remedy} {again}" for code, remedy in _REMEDIES.items()}
    return run_reporting(args.json, lambda watch: _copy(args, watch), lambda: again, remedies)


def _copy(args: argparse.Namespace, watch: Watch) -> int:
    began = time.monotonic()
    watch.step("opening")
    if args.bitmap is not None and args.since is None:
        raise StateUnusable(
            "--bitmap tells what changed since an earlier copy, and none is named.", "Name its state: --since DIR."
        )
    key = key_of(args)
    source = source_for(args.source, args.bitmap, key=key)
    target = _target(args, key, watch)
    if args.verify is not None:
        target.require_verifiable(args.verify)
    path = path_of(args.source)
    if path is not None:
        target.refuse_source(path)
    size = _size(source)
    subject = Subject(args.source if path is None else str(path.absolute()), target.text, target.migration)
    with _state(args, source, target, subject, watch) as state:
        if args.since is not None and not (target.exists and state.is_target(target.id)):
            raise StateUnusable(
                f"The target {target.text} is not the one that the state {state.folder} knows, whatever its name.",
                f"Copy in full: --state {state.folder} in place of --since.",
            )
        with target.held(size, lambda found: args.overwrite or state.is_target(found)) as behind:
            if behind:
                watch.display.note(f"the target is larger than the source: its last {behind} bytes stay as they are")
            generation, base = _footing(args, state, target, size, watch)
            throttles = [] if args.limit is None else [Throttle(Bandwidth(limit=args.limit))]

            def flow() -> Flow:
                return Flow(DISK, throttles, watch.stop.is_set)

            order = Order(
                subject.migration,
                generation,
                base,
                [Target(DISK, source, target.id, target.sinks(generation, flow), target.pack_bytes)],
                compression=args.compress or target.compression,
                memory=MemoryBudget(BUFFERS),
            )
            state.begin(target.id)
            try:
                result = _replicate(state.folder, order, watch, target.text)
            except BaseException:
                state.stopped(target.id, target.left)
                raise
            holds = state.engine.maps(DISK).load(generation)
            assert holds is not None
            target.keep(holds, result, state.attempt_at(generation, DISK, size))
            wrong: Ranges = []
            if args.verify is not None:
                watch.step("verifying")
                wrong = target.differing(DISK, generation, holds, args.verify, watch)
                if wrong and args.verify != "full":
                    # Where there is one damaged block there may be others that were not drawn.
                    watch.display.note("the sample is not right: all of the target is read back")
                    wrong = list(Intervals([*wrong, *target.differing(DISK, generation, holds, "full", watch)]))
            state.ended(generation, DISK, wrong, target.id, target.modified)
            summary = Summary(args, result, watch.read_bytes, holds, wrong, time.monotonic() - began)
    watch.display.result(summary.fields(), summary.text())
    return DIFFERENT if wrong else SAME


def _target(args: argparse.Namespace, key: KeyOf | None, watch: Watch) -> Destination:
    if args.target.startswith(SCHEMES):
        return ArchiveTarget(parse_place(args.target, generation=True), None if args.plain else key, args.plain)
    if args.target.startswith(_NO_TARGET):
        raise TargetRefused(
            f"{args.target} is no target: a copy goes to a file or a device, a gateway, or an archive.",
            "Write the path alone, https://HOST:PORT/VOLUME or folder:DIR; ./ before a name that begins like that.",
        )
    if not args.target.startswith(("https://", "http://")):
        if args.target.endswith("/"):
            raise TargetRefused(f"{args.target} names a folder.", "Name a file in it, or write folder:DIR.")
        return LocalTarget(Path(args.target))
    # It brings what only a gateway needs.
    from wavelift.cli.gateway_target import GatewayTarget

    return GatewayTarget(args.target, args.token_file, args.fingerprint, watch)


@contextmanager
def _state(
    args: argparse.Namespace, source: Source, target: Destination, subject: Subject, watch: Watch
) -> Iterator[CopyState]:
    folder = args.state or args.since
    if folder is not None:
        with kept(folder, subject, must_exist=args.since is not None) as state:
            yield state
        return
    with passing(subject) as state:
        try:
            yield state
        except BaseException:
            target.discard()
            raise
        finally:
            _leave(source, subject.migration, watch)


def _leave(source: Source, migration: str, watch: Watch) -> None:
    """A live guest keeps no bitmap for a copy that nothing follows."""
    if isinstance(source, QemuDisk):
        try:
            source.forget(migration)
        except (BlockError, OSError) as error:
            watch.display.note(f"a dirty bitmap may have stayed in the guest: {explain(error)[1]}")


def _size(source: Source) -> int:
    if isinstance(source, Described):
        return source.describe()[0]
    opened = source.open()
    try:
        return opened.size
    finally:
        opened.close()


def _footing(
    args: argparse.Namespace, state: CopyState, target: Destination, size: int, watch: Watch
) -> tuple[int, int | None]:
    """The generation to make, and the one that it builds on. Raises as `Destination.unlike` does."""
    committed = state.engine.committed()
    base = None if args.since is None or committed is None else committed.generation
    newest = target.newest
    try:
        attempt = state.attempt(DISK, size)
        unlike = None if attempt is None else target.unlike(attempt, watch)
    except MapError as error:
        watch.display.note(f"{error.message} All of it is copied again")
        return state.next_generation(newest), None
    if attempt is not None and unlike is not None:
        state.doubt(DISK, unlike)
        return attempt.generation, base
    if attempt is None and (base is None or not state.touched_since(target.modified)):
        return state.next_generation(newest), base
    watch.display.note("something wrote to the target since the last copy: all of it is copied again")
    return state.next_generation(newest), None


def _replicate(folder: Path, order: Order, watch: Watch, target: str) -> dict[str, Any]:
    try:
        result = replicate(folder, order, watch)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise TargetRefused(
            f"There is no room left for {target}, or for the state in {folder}.",
            "Make room; with --state, the same command goes on where it was.",
            code="no_room",
        ) from None
    for note in result["notes"]:
        watch.display.note(note)
    return result


def _rate(text: str) -> int:
    try:
        return parse_rate(text)
    except InvalidRate as error:
        raise argparse.ArgumentTypeError(f"{error.message} {error.remedy}") from None


def _compression(text: str) -> Compression:
    known = {"auto": Compression.AUTO, "off": Compression.NEVER}
    kind, _, level = text.partition(":")
    if text in known:
        return known[text]
    if kind == "zstd" and level.isdigit() and 1 <= int(level) <= MAX_LEVEL:
        return Compression(int(level))
    raise argparse.ArgumentTypeError(f"{text!r} is none of auto, off, zstd:1 to zstd:{MAX_LEVEL}")
