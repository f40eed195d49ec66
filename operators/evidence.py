"""Where the proof of a boot is kept, and the link that leads to it from the task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.configuration import conf
from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

URL_PREFIX = "/wavelift"
FILES = ("screenshot.png", "console.txt", "checks.json")


def evidence_folder(run: str) -> Path:
    """Screenshot, console and check results of a run, by its short name ([wavelift] evidence_dir)."""
    return Path(conf.get_mandatory_value("wavelift", "evidence_dir")) / run


class EvidenceLink(BaseOperatorLink):
    """Button of the boot_verify task: the page that the plugin serves."""

    name = "Boot evidence"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        base = conf.get("api", "base_url", fallback="").rstrip("/")
        return f"{base}{URL_PREFIX}/evidence/{quote(ti_key.dag_id, safe='')}/{quote(ti_key.run_id, safe='')}/"
