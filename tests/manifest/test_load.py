"""A manifest's errors name file, line, column, field, what is wrong and what would be right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from wavelift.blocks.bandwidth import Bandwidth
from wavelift.cli.main import main
from wavelift.manifest.load import ManifestError, load, parse
from wavelift.manifest.schema import Keep

REPO = Path(__file__).resolve().parents[2]
DEMO = (REPO / "manifests" / "demo.yaml").read_text()


def problems(text: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        parse(text, "m.yaml")
    return [str(problem) for problem in caught.value.problems]


def line_of(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


def test_the_demo_manifest_says_what_it_should() -> None:
    manifest = load(REPO / "manifests" / "demo.yaml")
    migration = manifest.migration("web")
    assert [disk.id for disk in migration.source.ordered] == ["system", "data"]
    assert migration.sync.interval == 15.0
    assert migration.keep == [Keep.INSTANCE, Keep.IMAGE, Keep.SNAPSHOTS]
    assert [str(check) for check in migration.checks][-1] == "TCP port 8080 answers"


@pytest.mark.parametrize(
    ("old", "new", "at", "field", "says"),
    [
        ("  instance_type:", "  instnce_type:", "instnce_type", "target.instnce_type", "did you mean `instance_type`?"),
        ("interval: 15s", "interval: 15", "interval: 15", "sync.interval", "write a number with a unit"),
        ("interval: 15s", "interval: soon", "interval: soon", "sync.interval", "write a number with a unit"),
        ("PL0", "PL9", "PL9", "target.performance_level", "'PL0', 'PL1', 'PL2' or 'PL3'"),
        ("boot: true", "boot: maybe", "boot: maybe", "source.disks[0].boot", "true or false"),
        ("tcp: 8080", "tcp: 99999", "tcp: 99999", "checks[2].tcp", "65535"),
        ("- tcp: 8080", "- {}", "- {}", "checks[2]", "`console: TEXT` or `tcp: PORT`"),
        ("[instance, image", "[instanz, image", "keep: [instanz", "keep[0]", "'instance', 'image'"),
        ("- id: data", "- id: system", "source:", "source", "disk ids must differ"),
        ("boot_timeout:", "bandwidth: fast\n    boot_timeout:", "bandwidth: fast", "bandwidth.limit", "400mbit"),
        ("boot_timeout:", "bandwidth: [1]\n    boot_timeout:", "bandwidth: [1]", "bandwidth", "50MB/s"),
        (
            "boot_timeout:",
            "bandwidth: {windows: [{fro: 8, to: '9:00', limit: 0}]}\n    boot_timeout:",
            "bandwidth: {windows",
            "bandwidth.windows[0].fro",
            "did you mean `from`?",
        ),
        ("boot: true", "boot: false", "source:", "source", "exactly one disk must have `boot: true`"),
    ],
)
def test_an_error_names_place_field_and_remedy(old: str, new: str, at: str, field: str, says: str) -> None:
    text = DEMO.replace(old, new, 1)
    found = [problem for problem in problems(text) if f": migrations[0].{field}: " in problem]
    assert len(found) == 1, problems(text)
    assert found[0].startswith(f"m.yaml:{line_of(text, at)}:")
    assert says in found[0]


def test_a_limit_is_the_migrations_own_or_else_the_waves() -> None:
    text = DEMO.replace("migrations:", "bandwidth: 400mbit\nmigrations:", 1)
    manifest = parse(text, "m.yaml")
    assert manifest.bandwidth_of(manifest.migration("web")) == Bandwidth(limit=50_000_000)
    own = """    bandwidth:
      limit: 50MB/s
      timezone: Asia/Shanghai
      windows:
        - {days: [mon], from: 22:00, to: "06:30", limit: 0}
    boot_timeout: 10m"""
    manifest = parse(text.replace("    boot_timeout: 10m", own), "m.yaml")
    found = manifest.bandwidth_of(manifest.migration("web"))
    assert found is not None and found.limit == 50_000_000
    assert [(each.days, each.start, each.end) for each in found.windows] == [(("mon",), 22 * 60, 390)]


def test_the_commented_limit_of_the_demo_manifest_holds() -> None:
    # Without its comment signs, and without the short form above it.
    lines = [line for line in DEMO.splitlines() if "# bandwidth: 400mbit" not in line]
    manifest = parse("\n".join(re.sub(r"^    # ", "    ", line) for line in lines), "m.yaml")
    found = manifest.migration("web").bandwidth
    assert found is not None and [window.limit for window in found.windows] == [5_000_000, 0]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("wave: demo", "wave: De_mo", "wave: 'De_mo' may hold only lower-case"),
        ("backend: alibaba", "backend: aws", "cloud.backend: must be 'alibaba', not 'aws'"),
        ("version: 1", "version: 2", "version: must be 1, not 2"),
    ],
)
def test_an_error_at_the_top(old: str, new: str, says: str) -> None:
    text = DEMO.replace(old, new, 1)
    (problem,) = problems(text)
    assert problem.startswith(f"m.yaml:{line_of(text, new)}:")
    assert says in problem


def test_a_missing_field_is_reported_where_it_belongs() -> None:
    text = DEMO.replace("  zone: cn-local-a\n", "")
    assert problems(text) == [f"m.yaml:{line_of(text, 'cloud:')}:1: cloud.zone: is missing"]


def test_every_error_is_reported_at_once_in_the_order_of_the_file() -> None:
    text = DEMO.replace("version: 1", "version: 3").replace("tcp: 8080", "tcp: no").replace("PL0", "PLx")
    lines = [int(problem.split(":")[1]) for problem in problems(text)]
    assert len(lines) == 3
    assert lines == sorted(lines)


def test_a_key_written_twice_is_refused() -> None:
    text = DEMO.replace("wave: demo\n", "wave: demo\nwave: other\n")
    assert problems(text) == [f"m.yaml:{line_of(text, 'wave: other')}:1: wave: is written twice"]


@pytest.mark.parametrize("text", ["", "- 1\n", "a: [1\n", "a: b: c\n", "\x00", "? [1, 2]\n: 3\n"])
def test_what_is_no_manifest_is_refused_with_a_place(text: str) -> None:
    assert problems(text)[0].startswith("m.yaml:")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"gone\.yaml:1:1: cannot be read"):
        load(tmp_path / "gone.yaml")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_any_yaml_is_accepted_or_explained(data: object) -> None:
    with pytest.raises(ManifestError) as caught:
        parse(yaml.safe_dump(data), "m.yaml")
    assert all(problem.line >= 1 and problem.column >= 1 for problem in caught.value.problems)


def test_validate_and_plan_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = REPO / "manifests" / "demo.yaml", tmp_path / "bad.yaml"
    bad.write_text(DEMO.replace("region:", "regoin:"))
    assert main(["validate", str(good)]) == 0
    assert "ok, wave demo with 1 migration" in capsys.readouterr().out
    assert main(["validate", str(good), str(bad)]) == 1
    assert "cloud.regoin: unknown field; did you mean `region`?" in capsys.readouterr().err
    assert main(["plan", str(good)]) == 0
    lines = capsys.readouterr().out.splitlines()
    steps = [line.split()[0] for line in lines[1:]]
    assert lines[0] == "demo/web"
    assert list(dict.fromkeys(steps)) == [
        "provision", "full_copy", "snapshot", "incremental_loop", "driver_inject", "image", "boot_verify", "cleanup",
    ]  # fmt: skip
    assert main(["plan", str(bad)]) == 1
