"""The end of a copy: what was read, sent and written, and whether the target holds it."""

from __future__ import annotations

import argparse
from typing import Any

from wavelift.blocks.blockmap import DiskMap, segments_of
from wavelift.blocks.digest import BLOCK, DIGEST, SEGMENT, ZERO_DIGEST
from wavelift.cli.footing import Ranges
from wavelift.cli.units import duration, size
from wavelift.cli.verify import ranges_text


class Summary:
    def __init__(
        self, args: argparse.Namespace, result: dict[str, Any], read: int, found: DiskMap, wrong: Ranges, seconds: float
    ) -> None:
        """`result` is of the engine, `read` in bytes, `found` the source's map; `wrong` where the target is not."""
        self._args = args
        self._result = result
        self._disk: dict[str, Any] = result["disks"][0]
        self._read = read
        self._zero = _zeroes(found)
        self._wrong = wrong
        self._seconds = seconds

    def fields(self) -> dict[str, Any]:
        state = self._args.state or self._args.since
        disk = self._disk
        return {
            "source": self._args.source,
            "target": self._args.target,
            "size": disk["size"],
            "consistency": disk["consistency"],
            "increment": self._result["base_used"] is not None,
            "tracker": self._result["tracker"],
            "read_bytes": self._read,
            "zero_bytes": self._zero,
            "deduped_bytes": disk["moved_bytes"],
            "sent_bytes": disk["sent_bytes"],
            "wire_bytes": disk["wire_bytes"],
            "written_bytes": disk["changed_bytes"],
            "root": disk["root"],
            "verified": None if self._wrong else self._args.verify,
            "wrong_ranges": self._wrong,
            "state": None if state is None else str(state),
            "seconds": round(self._seconds, 3),
        }

    def text(self) -> str:
        disk = self._disk
        increment = self._result["base_used"] is not None
        what = f"changes, found by {self._result['tracker']}," if increment else "all"
        lines = [
            f"{self._args.source} -> {self._args.target}: {what} of {size(disk['size'])} in {duration(self._seconds)}",
            f"  source    {disk['consistency']}; zero: {size(self._zero)}",
            f"  read      {size(self._read)}",
            f"  sent      {size(disk['sent_bytes'])} in packs of {size(disk['wire_bytes'])}; "
            f"deduped: {size(disk['moved_bytes'])}",
            f"  written   {size(disk['changed_bytes'])}",
            f"  root      {disk['root']}",
            f"  verified  {self._verified()}",
        ]
        return "\n".join(lines)

    def _verified(self) -> str:
        if self._wrong:
            state = self._args.state or self._args.since
            again = "the same command" if state is None else f"--since {state}"
            return f"NO, the target holds something else; {again} sends it again\n{ranges_text(self._wrong)}"
        return {
            None: "no (--verify full reads the target back)",
            "full": "the target was read back and has this root",
            "sample": "a random part of the target was read back and is right",
        }[self._args.verify]


def _zeroes(found: DiskMap) -> int:
    """Bytes in blocks of zeroes; a disk's last block may be shorter."""
    count = 0
    for number in range(segments_of(found.size)):
        start = number * SEGMENT
        length = min(SEGMENT, found.size - start)
        if found.segment(number) == ZERO_DIGEST:
            count += length
            continue
        table = found.table(number)
        for at in range(0, len(table), DIGEST):
            if table[at : at + DIGEST] == ZERO_DIGEST:
                count += min(BLOCK, length - at // DIGEST * BLOCK)
    return count
