"""The demo server's disks, built once and kept from run to run."""

from pathlib import Path

import pytest

from demo.machine import MachineFiles, build

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def demo_machine() -> MachineFiles:
    return build(REPOSITORY / ".wavelift/build/machine")
