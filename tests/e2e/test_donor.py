"""The main job where the account may not make the machine of an image: a donor boots what was migrated."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from alibabacloud_ecs20140526 import models

from demo.run import console_text
from demo.stack import Stack
from tests.e2e.command import run_demo
from tests.e2e.donors import connect
from tests.e2e.resources import everything, tagged

pytestmark = [pytest.mark.e2e, pytest.mark.machine, pytest.mark.routes, pytest.mark.timeout(1500)]


def test_a_donor_boots_the_machine_and_nothing_else_is_left(stack: Stack, manifests: Path, tmp_path: Path) -> None:
    connect(stack)
    before = everything(stack.cloud())
    done = run_demo(stack, manifests / "donor.yaml", tmp_path / "summary.json")
    stack.check()
    assert done.returncode == 0, done.stdout + done.stderr
    (migrated,) = json.loads((tmp_path / "summary.json").read_text())["migrations"]
    result = stack.airflow().xcom("migrate__donor__web", _run_id(tmp_path), "image")
    assert result["strategy"] == "donor" and result["instance"] == migrated["instance"]
    assert migrated["source_root"] == migrated["target_root"]
    assert len(migrated["checks"]) == 3 and all(check["passed"] for check in migrated["checks"])
    console = console_text(migrated)
    assert "demo-web login:" in console and re.search(r"^DEMO-DATA OK .*generation 2", console, re.MULTILINE)
    left = {kind: ids - before[kind] for kind, ids in everything(stack.cloud()).items()}
    request = models.DescribeDisksRequest(region_id="cn-local", instance_id=migrated["instance"])
    own = {disk.disk_id for disk in stack.cloud().describe_disks(request).body.disks.disk}
    assert left["instances"] == {migrated["instance"]} and left["images"] == {migrated["image"]}
    assert left["disks"] == own and len(own) == 2
    assert left["snapshots"] == set(migrated["snapshots"].values()) | set(result["snapshots"].values())
    assert tagged(stack.cloud(), "donor") == own | {migrated["instance"], migrated["image"]} | left["snapshots"]


def _run_id(folder: Path) -> str:
    return str(json.loads((folder / "summary.json").read_text())["run_id"])
