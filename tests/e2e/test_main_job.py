"""The main job: a machine that cannot boot on virtio is moved, proven, made bootable, and boots."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from alibabacloud_ecs20140526 import models
from PIL import Image

from demo.run import console_text
from demo.stack import Stack
from tests.e2e.command import Told
from tests.e2e.resources import everything
from wavelift.manifest.plan import STEPS
from wavelift.service import tokens
from wavelift.service.client import ServiceClient

pytestmark = [pytest.mark.e2e, pytest.mark.machine, pytest.mark.timeout(900)]


def test_every_step_ran_in_order(migrated: dict[str, Any]) -> None:
    assert all(migrated["seconds"][step] is not None for step in STEPS)


def test_no_step_failed_on_the_way(stack: Stack, migrated: dict[str, Any]) -> None:
    api, dag_id, run_id = stack.airflow(), "migrate__demo__web", migrated["run_id"]
    for step, task in api.tasks(dag_id, run_id).items():
        for attempt in range(1, task["try_number"]):
            error = api.error_of(dag_id, run_id, step, attempt)
            # The scheduler may take a task that resumed very quickly for a lost one; nothing else may happen.
            assert "Task Instance not found" in error, f"{step}, attempt {attempt}: {error}"


def test_roots_are_equal_and_the_generation_is_the_second(migrated: dict[str, Any]) -> None:
    assert migrated["generation"] == 2
    assert migrated["source_root"] == migrated["target_root"]
    assert len(bytes.fromhex(migrated["source_root"])) == 32


def test_the_kept_snapshots_hold_the_source_byte_for_byte(stack: Stack, migrated: dict[str, Any]) -> None:
    for disk, snapshot in migrated["snapshots"].items():
        source = stack.state / "source" / f"{disk}.img"
        (stored,) = (stack.state / "cloud").rglob(f"{snapshot}.raw")
        compared = subprocess.run(["cmp", f"--bytes={source.stat().st_size}", stored, source], capture_output=True)
        assert compared.returncode == 0, compared.stdout + compared.stderr


def test_the_increment_sent_only_what_had_changed(migrated: dict[str, Any]) -> None:
    (cycle,) = migrated["sent_bytes"]["cycles"]
    assert 1_000_000 < cycle < 0.1 * migrated["sent_bytes"]["full"]


def test_the_instance_proves_itself(migrated: dict[str, Any]) -> None:
    assert len(migrated["checks"]) == 3
    assert all(check["passed"] for check in migrated["checks"])
    console = console_text(migrated)
    # The guest compared every file of its data disk, those of the second generation included.
    assert any(
        line.startswith("DEMO-DATA OK") and line.rstrip().endswith("generation 2") for line in console.splitlines()
    )
    assert "demo-web login:" in console


def test_the_screenshot_shows_something(migrated: dict[str, Any]) -> None:
    with Image.open(migrated["screenshot"]) as picture:
        assert picture.format == "PNG"
        assert picture.width >= 640
        assert len(picture.convert("L").getcolors(256) or []) > 1


def test_progress_and_proof_are_printed(told: Told, migrated: dict[str, Any]) -> None:
    lines = told.output.splitlines()
    steps = [step for step in STEPS if any(line.startswith(f"web: {step} (") for line in lines)]
    # Steps that end within a second may pass unseen.
    assert {"full_copy", "incremental_loop", "driver_inject", "boot_verify"} <= set(steps)
    assert any(re.match(r"web: driver_inject \(6/9\) .+ \d+%", line) for line in lines)
    assert "wave demo: verified" in lines
    assert migrated["image"] in told.output
    assert "Airflow UI: http://127.0.0.1:" in lines[-1]


def test_the_cloud_holds_exactly_what_the_manifest_keeps(stack: Stack, told: Told, migrated: dict[str, Any]) -> None:
    cloud = stack.cloud()
    left = {kind: ids - told.before[kind] for kind, ids in everything(cloud).items()}
    disks = cloud.describe_disks(models.DescribeDisksRequest(region_id="cn-local", instance_id=migrated["instance"]))
    of_the_instance = {disk.disk_id for disk in disks.body.disks.disk}
    assert left["instances"] == {migrated["instance"]}
    assert left["disks"] == of_the_instance
    assert len(of_the_instance) == 2
    assert left["images"] == {migrated["image"]}
    images = cloud.describe_images(models.DescribeImagesRequest(region_id="cn-local", image_id=migrated["image"]))
    mapping = images.body.images.image[0].disk_device_mappings.disk_device_mapping
    of_the_image = {each.snapshot_id for each in mapping}
    assert left["snapshots"] == of_the_image | set(migrated["snapshots"].values())
    assert len(left["snapshots"]) == 4


def test_the_agent_keeps_nothing_of_a_finished_run(stack: Stack, migrated: dict[str, Any]) -> None:
    with ServiceClient(stack.agent_url, stack.secrets.agent_token, stack.agent_fingerprint) as agent:
        assert agent.jobs() == []


def test_no_secret_is_in_a_log_or_in_airflows_database(stack: Stack, migrated: dict[str, Any]) -> None:
    secrets = stack.secrets
    hidden = [
        text.encode() for text in (stack.access_key[1], secrets.agent_token, secrets.gateway_secret, secrets.jwt_secret)
    ]
    places = [*(stack.state / "log").rglob("*"), *(stack.state / "airflow").rglob("*")]
    # Whatever begins like a token of a gateway, or holds the key of one's certificate.
    hidden += [tokens.issue("k" * 32, migration="", scope="write", lifetime=0).split(".")[0].encode(), b"PRIVATE KEY"]
    read = 0
    for place in places:
        if place.is_file() and place.name != "passwords.json":
            content = place.read_bytes()
            read += 1
            assert not [secret for secret in hidden if secret in content], place
    assert read > 10


def test_the_evidence_page_is_served_to_who_is_signed_in(stack: Stack, migrated: dict[str, Any]) -> None:
    api = stack.airflow()
    path = f"/wavelift/evidence/migrate__demo__web/{migrated['run_id']}/"
    assert "DEMO-READY" in api.page(path).text
    assert api.page(path + "screenshot.png").content == Path(migrated["screenshot"]).read_bytes()
    assert api.page(path + "screenshot.png", signed_in=False).status_code in (401, 403)
    assert api.page(path + "../../../secrets.json").status_code == 404
