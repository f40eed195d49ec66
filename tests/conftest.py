"""Settings that must be in place before Airflow or libguestfs is imported anywhere."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

# Airflow writes its default configuration into AIRFLOW_HOME on import; the user's own must not be touched.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="wavelift-airflow-")
atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)
# The appliance is built once and shared with the demo; `make clean` finds it there.
BUILD = Path(__file__).resolve().parents[1] / ".wavelift" / "build"
BUILD.mkdir(parents=True, exist_ok=True)
os.environ["LIBGUESTFS_CACHEDIR"] = str(BUILD)

TESTS = Path(__file__).parent
# Folders whose tests share what is dear to start (a cloud, a machine's image, Airflow): one process runs them all.
ALONE = "guest/osmatrix/"
TOGETHER = ("e2e", "machine", "guest", "storage_backends", "operators", "localcloud/oss", "localcloud/conformance")


class ByFolder(LoadScopeScheduling):
    """For several processes (`-n 2`): what is to run in one of them."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.split("::")[0].removeprefix("tests/")
        # Each machine of the matrix is one of its own.
        if module.startswith(ALONE):
            return nodeid
        return next((name for name in TOGETHER if module.startswith(f"{name}/")), module)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFolder:
    return ByFolder(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first."""
    items.sort(key=lambda item: not item.path.is_relative_to(TESTS / "e2e"))
