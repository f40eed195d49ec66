"""The demo's machine by every route, from the demo's manifest with only `route` changed: three increments while it
lives on, and the same root at the end of each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from demo.machine import write_generation
from demo.run import MigrationView, run_wave, summary
from demo.stack import Stack
from tests.e2e.resources import everything
from wavelift.manifest.load import load
from wavelift.manifest.route import Route
from wavelift.service.client import ServiceClient, ServiceError

pytestmark = [pytest.mark.e2e, pytest.mark.machine, pytest.mark.routes, pytest.mark.timeout(1500)]
# Disks and a bucket; straight to the gateway goes what the everyday suite runs.
IN_CI = (Route.SEED_OFFLINE_THEN_OSS,)
LAST = 4
STEP = 1 << 20


@pytest.fixture(scope="session")
def states(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The data disk at each of its generations: a file's times make two writes of the same files differ."""
    folder = tmp_path_factory.mktemp("states")
    found = {1: folder / "1.img"}
    shutil.copyfile(stack.data_disk, found[1])
    for generation in range(2, LAST + 1):
        found[generation] = folder / f"{generation}.img"
        shutil.copyfile(found[generation - 1], found[generation])
        write_generation(found[generation], generation)
    return found


def become(disk: Path, state: Path) -> None:
    """Write to the disk what differs, as a server would."""
    with disk.open("r+b") as there, state.open("rb") as wanted:
        while part := wanted.read(STEP):
            at = there.tell()
            if there.read(len(part)) != part:
                there.seek(at)
                there.write(part)


def committed(stack: Stack) -> dict[str, int]:
    """By migration, the generation that the agent's next one builds on."""
    found = {}
    with ServiceClient(stack.agent_url, stack.secrets.agent_token, stack.agent_fingerprint) as agent:
        for migration in {job["key"].partition("/")[0] for job in agent.get("/v1/jobs")}:
            try:
                found[migration] = int(agent.get(f"/v1/migrations/{migration}")["generation"])
            except ServiceError as error:
                if error.http_status != 404:
                    raise
    return found


def living(stack: Stack, states: dict[int, Path]) -> Callable[[dict[str, MigrationView]], None]:
    """The source goes on to its next state whenever one was committed."""
    shown = 1

    def look(_views: dict[str, MigrationView]) -> None:
        nonlocal shown
        stack.check()
        newest = max(committed(stack).values(), default=0)
        if shown <= newest < LAST:
            shown = newest + 1
            become(stack.data_disk, states[shown])

    return look


@pytest.fixture(scope="session")
def first_root() -> dict[str, str]:
    """By what it is of, the root that the first route ended with."""
    return {}


@pytest.mark.parametrize(
    "route",
    [pytest.param(route, marks=[pytest.mark.slow] if route in IN_CI else [], id=route.value) for route in Route],
)
def test_a_route_ends_in_the_same_bytes_as_every_other(
    stack: Stack, by_route: dict[Route, Path], states: dict[int, Path], first_root: dict[str, str], route: Route
) -> None:
    become(stack.data_disk, states[1])
    manifest = load(by_route[route])
    before = everything(stack.cloud())
    api = stack.airflow()
    result = run_wave(api, manifest, on_change=living(stack, states), seconds=1200)
    assert result.state == "success", result.errors
    assert result.verified
    (view,) = result.views.values()
    told: dict[str, Any] = summary(api, view, result.run_id)
    assert told["generation"] == LAST
    assert told["source_root"] == told["target_root"]
    assert first_root.setdefault("root", told["target_root"]) == told["target_root"]
    loop = api.xcom(view.dag_id, result.run_id, "incremental_loop")
    full = api.xcom(view.dag_id, result.run_id, "full_copy")
    assert loop is not None and full is not None
    carriers = [full["carrier"], *(cycle["carrier"] for cycle in loop["cycles"])]
    assert carriers == [route.carrier(generation).value for generation in range(1, LAST + 1)]
    assert all(cycle["sent_bytes"] < full["sent_bytes"] / 5 for cycle in loop["cycles"])
    if route.lands:
        assert all(check["passed"] for check in told["checks"])
    else:
        assert everything(stack.cloud()) == before
