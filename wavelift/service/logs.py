"""Logs on stderr: JSON lines for programs, or text for people. A line of a job names the job."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

_JOB: ContextVar[dict[str, str | int] | None] = ContextVar("job", default=None)


def add_log_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--log-format", choices=("json", "text"), help="of the log on stderr (default: text on a terminal, else json)"
    )


def configure_logging(log_format: str | None = None) -> None:
    """Log to stderr; stdout belongs to the line that says where the service listens."""
    chosen = log_format or ("text" if sys.stderr.isatty() else "json")
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    handler.setFormatter(JsonFormatter() if chosen == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler])


@contextmanager
def lines_of_job(key: str, migration: str | None, generation: int | None) -> Iterator[None]:
    """What this thread logs meanwhile names the job."""
    about: dict[str, str | int] = {"job": key}
    if migration is not None:
        about["migration"] = migration
    if generation is not None:
        about["generation"] = generation
    before = _JOB.set(about)
    try:
        yield
    finally:
        _JOB.reset(before)


class JsonFormatter(logging.Formatter):
    """One object a line: `time` (UTC), `level`, `logger`, `message`; `job`, `migration`, `generation` where there
    is one, and `exception` with the trace of an unforeseen error."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, str | int] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **(_JOB.get() or {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
