"""The end of a copy: what was read, sent and written, and whether the target holds it."""

from __future__ import annotations

import argparse
from typing import Any

from wavelift.cli.units import duration, size
from wavelift.cli.verify import ranges_text


class Summary:
    def __init__(
        self, args: argparse.Namespace, result: dict[str, Any], wrong: list[tuple[int, int]], seconds: float
    ) -> None:
        """`result` is the engine's; `wrong` what the target does not hold as it should, (start, end) in bytes."""
        self._args = args
        self._result = result
        self._disk: dict[str, Any] = result["disks"][0]
        self._wrong = wrong
        self._seconds = seconds

    def fields(self) -> dict[str, Any]:
        state = self._args.state or self._args.since
        return {
            "source": self._args.source,
            "target": self._args.target,
            "size": self._disk["size"],
            "consistency": self._disk["consistency"],
            "increment": self._result["base_used"] is not None,
            "tracker": self._result["tracker"],
            "changed_bytes": self._disk["changed_bytes"],
            "sent_bytes": self._disk["sent_bytes"],
            "wire_bytes": self._disk["wire_bytes"],
            "root": self._disk["root"],
            "verified": None if self._wrong else self._args.verify,
            "wrong_ranges": self._wrong,
            "state": None if state is None else str(state),
            "seconds": round(self._seconds, 3),
        }

    def text(self) -> str:
        disk = self._disk
        kind = "what changed" if self._result["base_used"] is not None else "all"
        found = f", changes by {self._result['tracker']}" if self._result["base_used"] is not None else ""
        lines = [
            f"{self._args.source} -> {self._args.target}: {kind} of {size(disk['size'])} in {duration(self._seconds)}",
            f"  source    {disk['consistency']}{found}",
            f"  changed   {size(disk['changed_bytes'])}",
            f"  sent      {size(disk['sent_bytes'])}, as {size(disk['wire_bytes'])} of packs",
            f"  root      {disk['root']}",
            f"  verified  {self._verified()}",
        ]
        return "\n".join(lines)

    def _verified(self) -> str:
        if self._wrong:
            again = "--since" if self._args.state or self._args.since else "--overwrite"
            return f"NO, the target holds something else. {ranges_text(self._wrong)}\n  repeat with {again}"
        return {
            None: "no (--verify full reads the target back)",
            "full": "the target was read back and has this root",
            "sample": "a random part of the target was read back and is right",
        }[self._args.verify]
