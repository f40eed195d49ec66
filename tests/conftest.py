"""Settings that must be in place before Airflow is imported anywhere."""

from __future__ import annotations

import os
import tempfile

# Airflow writes its default configuration into AIRFLOW_HOME on import; the user's own must not be touched.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="wavelift-airflow-")
