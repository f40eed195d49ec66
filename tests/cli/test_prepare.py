"""`wavelift prepare`: what it refuses, and that a plan writes nothing."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from demo.machine import build

REPOSITORY = Path(__file__).parents[2]
NETWORK = """\
hostname: web-2
network:
  interfaces:
    - {name: eth0, method: static, addresses: [10.0.0.5/24], gateway: 10.0.0.1}
"""


def prepare(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wavelift.cli.main", "prepare", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)


def test_a_disk_that_is_not_there(tmp_path: Path) -> None:
    done = prepare(tmp_path / "none.img")
    assert done.returncode == 1 and "none.img is not there" in done.stderr
    told = json.loads(prepare("--json", tmp_path / "none.img").stdout)
    assert (told["event"], told["code"]) == ("error", "no_such_disk")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hostnam: web-2\n", "hostnam: Extra inputs are not permitted"),
        ("network: {interfaces: [{method: static}]}\n", "network.interfaces.0: .*needs `addresses`"),
        ("network: [\n", "while parsing"),
    ],
)
def test_a_file_of_wishes_with_a_mistake_is_named(tmp_path: Path, text: str, said: str) -> None:
    wishes = tmp_path / "wishes.yaml"
    wishes.write_text(text)
    done = prepare("--network", wishes, tmp_path / "none.img")
    assert done.returncode == 2
    assert "wishes.yaml" in done.stderr
    assert re.search(said, done.stderr), done.stderr


@pytest.mark.slow  # an appliance
@pytest.mark.machine
def test_a_plan_shows_the_lines_and_writes_nothing(tmp_path: Path) -> None:
    machine = build(REPOSITORY / ".wavelift/build/machine")
    wishes = tmp_path / "wishes.yaml"
    wishes.write_text(NETWORK)
    before = [hashlib.sha256(disk.read_bytes()).hexdigest() for disk in (machine.system, machine.data)]
    done = prepare("--plan", "--network", wishes, machine.system, machine.data)
    assert done.returncode == 0, done.stderr
    assert "-/dev/sda1 " in done.stdout and "+UUID=" in done.stdout and "+web-2" in done.stdout
    assert [hashlib.sha256(disk.read_bytes()).hexdigest() for disk in (machine.system, machine.data)] == before
