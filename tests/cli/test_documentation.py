"""The examples of docs/copy.md and of the help: what needs only files is run in order, the rest is well formed."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import MIB, Shell, noise, same
from wavelift.cli.main import main

DOCUMENT = Path(__file__).parents[2] / "docs" / "copy.md"
ELSEWHERE = re.compile(r"://|/dev/|qmp:")


def examples(text: str, indent: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if re.match(rf"{indent}(wavelift|qemu-img) ", line)]
    # In a help text an explanation follows, apart.
    return [shlex.split(re.split(r" {2,}", line.strip())[0] if indent == "  " else line) for line in lines]


def parse(command: list[str]) -> None:
    module = importlib.import_module(f"wavelift.cli.{command[1]}")
    parser = argparse.ArgumentParser(exit_on_error=False)
    module.add_arguments(parser)
    parser.parse_args(command[2:])


def test_the_document_does_what_it_says(shell: Shell) -> None:
    disk = shell.image("disk.raw", 4 * MIB, {0: noise(MIB)})
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", disk, shell.folder / "disk.qcow2"], check=True)
    ran = 0
    for command in examples(DOCUMENT.read_text(), "    "):
        if any(ELSEWHERE.search(part) for part in command):
            continue
        if command[0] == "qemu-img":
            subprocess.run(command, cwd=shell.folder, check=True)
        else:
            with contextlib.chdir(shell.folder):
                assert main(command[1:]) == 0, command
        ran += 1
    assert ran >= 9
    assert all(same(disk, shell.folder / name) for name in ("copy.raw", "web.raw", "vm.raw"))
    assert (shell.folder / "maps/segments").is_dir()


@pytest.mark.parametrize("name", ["copy", "map", "restore", "verify"])
def test_the_examples_of_the_help_are_well_formed(name: str) -> None:
    found = examples(importlib.import_module(f"wavelift.cli.{name}").EXAMPLES, "  ")
    assert len(found) >= 3
    for command in found:
        parse(command)


def test_the_document_s_examples_elsewhere_are_well_formed() -> None:
    found = [each for each in examples(DOCUMENT.read_text(), "    ") if each[1] in ("copy", "map", "verify")]
    assert any("https://" in part for each in found for part in each)
    for command in found:
        parse(command)
