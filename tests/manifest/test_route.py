"""A migration's route: what the manifest must hold for it, what is planned, and what each generation travels on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from wavelift.manifest.load import ManifestError, parse
from wavelift.manifest.plan import STEPS, plan, steps_of
from wavelift.manifest.route import Carrier, Route
from wavelift.manifest.schema import Manifest

DEMO = Path(__file__).resolve().parents[2] / "manifests" / "demo.yaml"
ARCHIVE = {"connection": "wavelift_oss"}
OFFLINE = {"connection": "wavelift_offline", "write": ["/mnt/wl-01"], "read": ["/srv/wl-01"]}


def manifest(route: str, **sections: Any) -> Manifest:
    raw = yaml.safe_load(DEMO.read_text()) | sections
    raw["migrations"][0]["route"] = route
    return parse(yaml.safe_dump(raw), "demo.yaml")


def test_a_manifest_without_a_route_goes_direct() -> None:
    raw = yaml.safe_load(DEMO.read_text())
    raw["migrations"][0].pop("route", None)
    assert parse(yaml.safe_dump(raw), "demo.yaml").migrations[0].route is Route.DIRECT


@pytest.mark.parametrize(
    ("route", "sections", "carriers"),
    [
        ("direct", {}, [Carrier.GATEWAY] * 3),
        ("via oss", {"archive": ARCHIVE}, [Carrier.BUCKET] * 3),
        ("archive only", {"archive": ARCHIVE}, [Carrier.BUCKET] * 3),
        ("seed offline, then direct", {"offline": OFFLINE}, [Carrier.DISKS, Carrier.GATEWAY, Carrier.GATEWAY]),
        (
            "seed offline, then oss",
            {"offline": OFFLINE, "archive": ARCHIVE},
            [Carrier.DISKS, Carrier.BUCKET, Carrier.BUCKET],
        ),
    ],
)
def test_what_each_generation_travels_on(route: str, sections: dict[str, Any], carriers: list[Carrier]) -> None:
    (migration,) = manifest(route, **sections).migrations
    assert [migration.route.carrier(generation) for generation in (1, 2, 3)] == carriers


@pytest.mark.parametrize(
    ("route", "sections", "lacking"),
    [
        ("via oss", {"offline": OFFLINE, "archive": None}, "archive"),
        ("archive only", {"archive": None}, "archive"),
        ("seed offline, then direct", {"archive": ARCHIVE, "offline": None}, "offline"),
        ("seed offline, then oss", {"offline": OFFLINE, "archive": None}, "archive"),
        ("seed offline, then oss", {"archive": ARCHIVE, "offline": None}, "offline"),
    ],
)
def test_a_route_without_its_section_is_refused_by_name(route: str, sections: dict[str, Any], lacking: str) -> None:
    with pytest.raises(ManifestError, match=f"route '{route}' of web needs a section `{lacking}`"):
        manifest(route, **sections)


def test_an_unknown_route_lists_those_there_are() -> None:
    with pytest.raises(ManifestError, match="'seed offline, then oss' or 'archive only', not 'by pigeon'"):
        manifest("by pigeon")


def test_what_ends_in_an_archive_boots_nothing_and_keeps_every_snapshot() -> None:
    found = manifest("archive only", archive=ARCHIVE)
    (migration,) = found.migrations
    assert steps_of(migration) == ("preflight", "provision", "full_copy", "snapshot", "incremental_loop", "cleanup")
    lines = plan(found)[migration.name]
    assert not [line for line in lines if "gateway" in line.action or "instance" in line.action]
    assert all(line.kept for line in lines if "snapshot" in line.action or "archive(s)" in line.action)


def test_every_other_route_has_all_steps() -> None:
    found = manifest("seed offline, then oss", archive=ARCHIVE, offline=OFFLINE)
    (migration,) = found.migrations
    assert steps_of(migration) == STEPS
    said = [line.action for line in plan(found)[migration.name]]
    assert any("shipped" in line and "generation 1" in line for line in said)
    assert any("through the archive" in line and "generation 2" in line for line in said)
