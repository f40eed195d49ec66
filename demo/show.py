"""Progress and summary in the terminal: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from demo.run import MigrationView
from wavelift.manifest.plan import STEPS

_LINE_EVERY_SECONDS = 10.0


class Progress:
    """Context manager; call `update` with the views as often as you like."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None
        self._last: dict[str, tuple[str, float]] = {}

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def update(self, views: dict[str, MigrationView]) -> None:
        if self._live:
            self._live.update(_table(views))
            return
        for view in views.values():
            step, last = view.step, self._last.get(view.name, ("", 0.0))
            if step != last[0] or time.monotonic() - last[1] > _LINE_EVERY_SECONDS:
                self._last[view.name] = (step, time.monotonic())
                self._console.print(f"{view.name}: {' '.join(part for part in _cells(view) if part)}", highlight=False)


def _table(views: dict[str, MigrationView]) -> Table:
    table = Table("migration", "step", "", "%", "MB/s", "ETA")
    for view in views.values():
        table.add_row(view.name, *_cells(view))
    return table


def _cells(view: MigrationView) -> tuple[str, str, str, str, str]:
    step = view.step
    number = f"({STEPS.index(step) + 1}/{len(STEPS)})" if step in STEPS else ""
    state = view.state(step) or ""
    progress = view.progress
    if not progress:
        return f"{step} {number}", state, "", "", ""
    total, done = progress["total_bytes"], progress["done_bytes"]
    percent = f"{100 * done / total:.0f}%" if total else ""
    # Preparing a guest counts its work in steps, not in bytes.
    moves_bytes = "/prepare" not in str(progress["job"])
    rate = f"{progress['bytes_per_second'] / 1e6:.1f} MB/s" if moves_bytes and progress["bytes_per_second"] else ""
    eta = f"ETA {progress['eta_seconds']:.0f} s" if progress["eta_seconds"] is not None else ""
    return f"{step} {number}", str(progress["step"] or state), percent, rate, eta


def show_summary(console: Console, summary: dict[str, Any]) -> None:
    """Everything that proves the migration, then the seconds each step took."""
    table = Table(title=f"migration {summary['migration']}", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    same = "equal" if summary["source_root"] == summary["target_root"] else "DIFFERENT"

    def row(name: str, value: object) -> None:
        table.add_row(escape(name), escape(str(value)))

    row("source root", str(summary["source_root"]))
    row("target root", f"{summary['target_root']} ({same})")
    row("generation", str(summary["generation"]))
    row("sent", _sent(summary))
    for disk, snapshot in summary["snapshots"].items():
        row(f"snapshot of {disk}", snapshot)
    row("image", str(summary["image"]))
    row("instance", f"{summary['instance']} at {summary['address']}")
    for check in summary["checks"]:
        row(check["check"], f"{'ok' if check['passed'] else 'FAILED'}: {check['evidence']}")
    row("screenshot", str(summary["screenshot"]))
    row("console", str(summary["console"]))
    row("kept", ", ".join(f"{each['kind']} {each['id']}" for each in summary["kept"]))
    seconds = [f"{step} {value:g}" for step, value in summary["seconds"].items() if value is not None]
    row("seconds", ", ".join(seconds))
    console.print(table)


def _sent(summary: dict[str, Any]) -> str:
    full, cycles = summary["wire_bytes"]["full"] or 0, summary["wire_bytes"]["cycles"]
    parts = [f"full copy {full / 1e6:.1f} MB on the wire"]
    parts += [f"cycle {number} {size / 1e6:.1f} MB" for number, size in enumerate(cycles, 1)]
    return ", ".join(parts)
