"""`wavelift verify`: where two disks differ."""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from wavelift.blocks.compare import differences
from wavelift.cli.keys import add_key_file, key_of
from wavelift.cli.report import DIFFERENT, SAME, Watch, run_reporting
from wavelift.cli.tables import Disk, Watched
from wavelift.cli.units import size

SHOWN = 20
EXAMPLES = """\
examples:
  wavelift verify disk.raw copy.raw              read both and compare
  wavelift verify maps/monday.map /dev/vg/data   what changed since the block map was made
  wavelift verify maps/monday.map maps/friday.map

A and B are what `wavelift copy` takes as SOURCE, or block maps of `wavelift map`. What differs is named by its first
byte and the byte after its last, in blocks of 64 KiB. Of a block device that is larger than the other, as many bytes
are compared as the other has. Files are read past the page cache.

exit status: 0 the same, 1 different, 2 wrong usage or failed, 128 + N after signal N
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for name in ("A", "B"):
        parser.add_argument(
            name.lower(), metavar=name, help="file, block device, nbd://..., qmp:SOCKET?... or block map"
        )
    add_key_file(parser)
    parser.add_argument("--json", action="store_true", help="progress and result as JSON, one object a line")


def run(args: argparse.Namespace) -> int:
    def work(watch: Watch) -> int:
        with ExitStack() as stack:
            watch.step("opening")
            disks = [Disk(stack, text, watch, key_of(args)) for text in (args.a, args.b)]
            compared = min(disk.size for disk in disks)
            unequal = any(disk.size != compared and not disk.is_device for disk in disks)
            found: list[tuple[int, int]] = []
            if not unequal:
                for disk in disks:
                    if disk.size != compared:
                        watch.display.note(f"{disk.text} has {disk.size} bytes; the first {compared} are compared")
                watch.step("comparing")
                left, right = (disk.tables(compared) for disk in disks)
                found = list(differences(left, Watched(right, watch), watch.check))
            for disk in disks:
                disk.require_unchanged()
            labels = [disk.consistency for disk in disks]
        same = not found and not unequal
        fields = {
            "same": same,
            "a": {"name": args.a, "size": disks[0].size, "consistency": labels[0]},
            "b": {"name": args.b, "size": disks[1].size, "consistency": labels[1]},
            "different_bytes": sum(end - start for start, end in found),
            "ranges": found,
        }
        if unequal:
            text = f"different sizes: {disks[0].size} bytes and {disks[1].size} bytes"
        else:
            text = ranges_text(found) if found else f"the same: {size(compared)}"
        watch.display.result(fields, text)
        return SAME if same else DIFFERENT

    return run_reporting(args.json, work, lambda: "Nothing is known of what was not compared.")


def ranges_text(found: list[tuple[int, int]]) -> str:
    """The first of them; all are in the JSON."""
    lines = [f"different: {size(sum(end - start for start, end in found))} in {len(found)} range(s)"]
    lines += [f"  bytes {start} to {end}" for start, end in found[:SHOWN]]
    if len(found) > SHOWN:
        lines.append(f"  and {len(found) - SHOWN} more; --json names all of them")
    return "\n".join(lines)
