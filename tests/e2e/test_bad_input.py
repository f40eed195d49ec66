"""Every mistake a user can make ends in a task that says what, where and what to do, and leaves nothing behind."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from demo.run import WaveResult, run_wave
from demo.stack import Stack
from tests.e2e.broken import BROKEN, broken_manifests
from tests.e2e.command import run_demo
from tests.e2e.resources import everything, tagged
from wavelift.manifest.load import parse

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
DEMO = (Path(__file__).resolve().parents[2] / "manifests" / "demo.yaml").read_text()


@pytest.fixture(scope="module")
def results(stack: Stack) -> dict[str, WaveResult]:
    """Every broken wave, run side by side to its end."""

    def run(item: tuple[int, tuple[str, str]]) -> tuple[str, WaveResult]:
        number, (name, text) = item
        # Airflow on SQLite answers one change at a time (docs/decisions/0006); the runs themselves overlap.
        time.sleep(3 * number)
        return name, run_wave(stack.airflow(), parse(text, name), on_change=lambda views: stack.check(), seconds=500)

    waves = {name: text for name, text in broken_manifests(DEMO).items() if name in BROKEN}
    before = everything(stack.cloud())
    with ThreadPoolExecutor(len(waves)) as pool:
        ended = dict(pool.map(run, enumerate(waves.items())))
    assert everything(stack.cloud()) == before
    return ended


@pytest.mark.parametrize("name", BROKEN)
def test_a_mistake_fails_its_task_with_cause_and_remedy(
    stack: Stack, results: dict[str, WaveResult], name: str
) -> None:
    result = results[name]
    assert result.state == "failed"
    assert stack.airflow().run_state(f"migrate__{name}__web", result.run_id) == "failed"
    assert not result.verified
    error = result.errors["web"]
    assert error.startswith(f"{BROKEN[name].step}: ")
    for part in BROKEN[name].says:
        assert part in error, error
    assert tagged(stack.cloud(), name) == set()


def test_the_demo_command_fails_with_the_tasks_own_words(stack: Stack, tmp_path: Path) -> None:
    manifest = tmp_path / "missing-disk.yaml"
    manifest.write_text(broken_manifests(DEMO)["missing-disk"])
    done = run_demo(stack, manifest, tmp_path / "summary.json")
    assert done.returncode == 1
    assert "web failed in preflight: [invalid]" in done.stdout
    assert "Disk dota is not offered" in done.stdout
    # The stack was there before and is left running.
    stack.check()


def test_a_manifest_with_an_unknown_field_is_explained_in_airflow(stack: Stack) -> None:
    api = stack.airflow()
    api.wait_for_dag("invalid__unknown-field")
    api.trigger("invalid__unknown-field", "look")
    deadline = time.monotonic() + 60
    while (state := api.run_state("invalid__unknown-field", "look")) not in ("failed", "success"):
        assert time.monotonic() < deadline, state
        time.sleep(0.5)
    assert state == "failed"
    error = api.error_of("invalid__unknown-field", "look", "manifest", 1)
    line = next(n for n, text in enumerate(DEMO.splitlines(), 1) if "instance_type:" in text)
    assert f"unknown-field.yaml:{line}:7: migrations[0].target.instnce_type: unknown field" in error
    assert "did you mean `instance_type`?" in error
