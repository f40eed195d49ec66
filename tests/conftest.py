"""Settings that must be in place before Airflow or libguestfs is imported anywhere."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# Airflow writes its default configuration into AIRFLOW_HOME on import; the user's own must not be touched.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="wavelift-airflow-")
# The appliance is built once and shared with the demo; `make clean` finds it there.
BUILD = Path(__file__).resolve().parents[1] / ".wavelift" / "build"
BUILD.mkdir(parents=True, exist_ok=True)
os.environ["LIBGUESTFS_CACHEDIR"] = str(BUILD)
