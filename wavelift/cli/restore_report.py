"""What the restore command says: the generations of an archive, and what became of one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from wavelift.archive.archive import Archive
from wavelift.archive.layout import Generation
from wavelift.cli.footing import Ranges
from wavelift.cli.report import Display
from wavelift.cli.units import duration, size
from wavelift.cli.verify import ranges_text
from wavelift.hydrate.hydrate import Hydrated

_SHOWN = 20


def show_generations(archive: Archive, numbers: Sequence[int], display: Display) -> None:
    """Raises `ArchiveError`, `StoreError`."""
    found = [archive.load(number) for number in numbers]
    lines = [f"{archive.name}: {len(found)} generation(s), {'sealed' if archive.sealed else 'not sealed'}"]
    for each in found:
        made = datetime.fromtimestamp(each.made_at, UTC)
        base = "full" if each.base is None else f"on {each.base}"
        lines.append(
            f"  {each.generation:>4}  {made:%Y-%m-%d %H:%M} UTC  {base:<8} disk {each.disk}, {size(each.size)}, "
            f"{each.packs} pack(s) of {size(each.pack_bytes)}, {each.consistency}, root {each.root}"
        )
    names = ("generation", "base", "base_root", "disk", "size", "root", "consistency", "packs", "pack_bytes", "made_at")
    fields = {"generations": [{name: getattr(each, name) for name in names} for each in found]}
    display.result({"place": archive.name, "sealed": archive.sealed, **fields}, "\n".join(lines))


@dataclass(frozen=True)
class Restored:
    """`wrong` are the bytes that were read back differently, beside those that are missing."""

    args: argparse.Namespace
    generation: Generation
    done: Hydrated
    wrong: Ranges
    seconds: float

    def fields(self) -> dict[str, Any]:
        return {
            "place": self.args.place,
            "target": self.args.target,
            "generation": self.generation.generation,
            "size": self.generation.size,
            "root": self.generation.root,
            "consistency": self.generation.consistency,
            "packs_read": self.done.packs_read,
            "wire_bytes": self.done.wire_bytes,
            "written_bytes": self.done.written_bytes,
            "missing_bytes": self.done.missing_bytes,
            "missing": self.done.missing,
            "damaged": self.done.damaged,
            "verified": None if self.wrong else self.args.verify,
            "wrong_ranges": self.wrong,
            "seconds": round(self.seconds, 3),
        }

    def text(self) -> str:
        done, generation = self.done, self.generation
        lines = [
            f"{self.args.place} -> {self.args.target}: generation {generation.generation}, {size(generation.size)} in "
            f"{duration(self.seconds)}",
            f"  read      {done.packs_read} pack(s), {size(done.wire_bytes)}",
            f"  written   {size(done.written_bytes)}",
            f"  root      {generation.root}",
        ]
        if done.missing:
            lines.append(f"  MISSING   {size(done.missing_bytes)}, which no sound pack holds")
            lines += [f"    bytes {start} to {end}" for start, end in done.missing[:_SHOWN]]
            if len(done.missing) > _SHOWN:
                lines.append(f"    and {len(done.missing) - _SHOWN} more; --json names all of them")
        lines += [f"  damaged   {key}" for key in done.damaged[:_SHOWN]]
        lines.append(f"  verified  {self._verified()}")
        return "\n".join(lines)

    def _verified(self) -> str:
        if self.wrong:
            return f"NO, the target holds something else; the same command writes it again\n{ranges_text(self.wrong)}"
        rest = " but for what is missing" if self.done.missing else ""
        if self.args.verify == "sample":
            return f"a random part of the target was read back and is right{rest}"
        return f"the target was read back and is right{rest}" if rest else "the target was read back and has this root"
