"""`python -m demo`: what `make demo`, `make up`, `make down` run."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import httpx
from rich.console import Console
from rich.markup import escape

from demo.machine.change import write_generation
from demo.parts import REPO
from demo.processes import StackError
from demo.routes import by
from demo.run import MigrationView, run_wave, summary
from demo.show import Progress, show_summary
from demo.stack import DEFAULT_STATE, Stack, find, launch
from wavelift.manifest.load import load
from wavelift.manifest.route import Route

_UI_PORT = 8080


def main(argv: list[str] | None = None) -> int:
    """Exit status 0 only if what was asked for was done; for `run`: if every instance was verified."""
    parser = argparse.ArgumentParser(prog="python -m demo", description="The main job on one machine.")
    parser.add_argument("command", choices=("run", "up", "down"))
    parser.add_argument("--state", type=Path, default=DEFAULT_STATE, help="folder of the running stack")
    parser.add_argument("--manifest", type=Path, default=REPO / "manifests" / "demo.yaml")
    routes = ", ".join(repr(route.value) for route in Route)
    parser.add_argument("--route", type=Route, help=f"on a stack of its own, the demo's wave by {routes}")
    parser.add_argument("--json", type=Path, help="write the summary there as well")
    given = parser.parse_args(argv)
    # A log or a pipe has no width of its own; ids and paths must not be torn there.
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        if given.command == "down":
            return _down(console, given.state)
        if given.command == "up":
            _print_login(console, _running(console, given.state, _UI_PORT))
            return 0
        if given.route is not None:
            return _by_route(console, given.state, given.route, given.json)
        return _run(console, given.state, given.manifest, given.json)
    except (StackError, httpx.HTTPError, TimeoutError) as error:
        console.print(f"[bold red]failed:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130


def _running(console: Console, state: Path, port: int, manifests: Path | None = None) -> Stack:
    return find(state) or launch(
        state, say=lambda text: console.print(f"- {text}", highlight=False), port=port, manifests=manifests
    )


def _down(console: Console, state: Path) -> int:
    stack = find(state)
    if stack is None:
        console.print("nothing is running")
        return 0
    killed = stack.stop()
    console.print(f"stopped{'; had to kill ' + ', '.join(killed) if killed else ''}")
    return 0


def _by_route(console: Console, state: Path, route: Route, json_file: Path | None) -> int:
    if find(state) is not None:
        raise StackError(f"A stack with the manifests of the repository runs in {state}; stop it with `make down`.")
    with tempfile.TemporaryDirectory(prefix="wavelift-route-") as folder:
        shipped, manifests = Path(folder) / "disk", Path(folder) / "manifests"
        shipped.mkdir()
        manifests.mkdir()
        manifest = manifests / "demo.yaml"
        manifest.write_text(by(route, shipped, (REPO / "manifests" / "demo.yaml").read_text()))
        return _run(console, state, manifest, json_file, manifests)


def _run(
    console: Console, state: Path, manifest_file: Path, json_file: Path | None, manifests: Path | None = None
) -> int:
    stays = find(state) is not None
    stack = _running(console, state, 0, manifests)
    try:
        return _migrate(console, stack, manifest_file, json_file)
    finally:
        if stays:
            _print_login(console, stack)
        elif killed := stack.stop():
            console.print(f"had to kill {', '.join(killed)}")


def _migrate(console: Console, stack: Stack, manifest_file: Path, json_file: Path | None) -> int:
    manifest = load(manifest_file)
    api = stack.airflow()
    console.print(f"- triggering wave {manifest.wave} at {stack.airflow_url}", highlight=False)

    def change_source(_migration: str, step: str) -> None:
        # The source lives on: its data disk changes after the full copy, for the incremental cycle to find.
        if step == "full_copy":
            write_generation(stack.data_disk, 2)

    with Progress(console) as progress:

        def look(views: dict[str, MigrationView]) -> None:
            stack.check()
            progress.update(views)

        result = run_wave(api, manifest, on_change=look, on_step_done=change_source)
    summaries = [summary(api, view, result.run_id) for view in result.views.values()]
    for each in summaries:
        if each["migration"] not in result.errors:
            show_summary(console, each)
    for name, error in result.errors.items():
        console.print(f"[bold red]{name} failed[/] in {escape(error)}", highlight=False, soft_wrap=True)
    if json_file:
        document = {"run_id": result.run_id, "state": result.state, "migrations": summaries, "errors": result.errors}
        json_file.write_text(json.dumps(document, indent=2))
    console.print(f"wave {manifest.wave}: {'verified' if result.verified else result.state}")
    return 0 if result.verified else 1


def _print_login(console: Console, stack: Stack) -> None:
    console.print(
        f"Airflow UI: {stack.airflow_url}   user: admin   password: {stack.secrets.airflow_password}", highlight=False
    )


if __name__ == "__main__":
    sys.exit(main())
