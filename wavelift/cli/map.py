"""`wavelift map`: the digests of a disk, to a file or just their root."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from wavelift.blocks.blockmap import MAGIC, disk_root, segment_digest, segments_of, write_map
from wavelift.blocks.errors import BlockError
from wavelift.cli.keys import add_key_file, key_of
from wavelift.cli.overlap import overlap
from wavelift.cli.report import SAME, Watch, run_reporting
from wavelift.cli.tables import Disk, Watched, begins, path_of
from wavelift.cli.units import size

EXAMPLES = """\
examples:
  wavelift map disk.raw                           print the root that names the content
  wavelift map -o maps/monday.map /dev/vg/data    keep the digests too, to verify against later
  wavelift map -o maps/web.map nbd://127.0.0.1:10809

The tables of the digests are put in a folder `segments` beside FILE; maps in one folder share what they have in
common. The format is described in docs/format.md.

exit status: 0 done, 2 failed, 128 + N after signal N
"""


class OutputRefused(BlockError):
    """A file that must not be replaced; it was not."""

    default_code = "output_refused"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="file, block device, nbd://..., nbds://..., qmp:SOCKET?...")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to write the block map")
    add_key_file(parser)
    parser.add_argument("--json", action="store_true", help="progress and result as JSON, one object a line")


def run(args: argparse.Namespace) -> int:
    def work(watch: Watch) -> int:
        with ExitStack() as stack:
            watch.step("opening")
            if args.output is not None:
                _require_replaceable(args.output, path_of(args.source))
            disk = Disk(stack, args.source, watch, key_of(args))
            watch.step("reading")
            if args.output is None:
                root = disk_root(disk.size, b"".join(segment_digest(table) for table in _tables(disk, watch)))
            else:
                name = "disk" if disk.path is None else disk.path.name
                root = write_map(args.output, name, disk.size, _tables(disk, watch)).root
            consistency = disk.consistency
        fields = {
            "source": args.source,
            "size": disk.size,
            "root": root.hex(),
            "consistency": consistency,
            "output": None if args.output is None else str(args.output),
        }
        label = "" if consistency is None else f", {consistency}"
        watch.display.result(fields, f"{root.hex()}  {args.source} ({size(disk.size)}{label})")
        return SAME

    return run_reporting(args.json, work, lambda: "No block map was written.")


def _require_replaceable(output: Path, source: Path | None) -> None:
    """Raises `OutputRefused`, OSError."""
    if not output.exists():
        return
    if source is not None and source.exists() and overlap(source, output):
        raise OutputRefused(
            f"{output} and the source {source} are the same, or one lies on the other.", "Name another file."
        )
    if not output.is_file() or not begins(output, MAGIC):
        raise OutputRefused(f"{output} is there already and no block map.", "Name another file, or remove it first.")


def _tables(disk: Disk, watch: Watch) -> Iterator[bytes]:
    """Ends with an error, so that no map is written, when the disk changed meanwhile."""
    tables = Watched(disk.tables(disk.size), watch)
    for number in range(segments_of(disk.size)):
        yield tables.table(number)
    disk.require_unchanged()
