"""A guest on somebody's server: below the host's own work for CPU and disk, and under a ceiling of memory."""

from __future__ import annotations

import argparse
import ctypes
import os
import resource

NICE = 10
# A service takes 80 at its start, and 8 for each of up to 40 threads that answer requests.
LEAST_MIB = 512
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_WHO_PROCESS = 1
_BEST_EFFORT_LOWEST = (2 << 13) | 7


def add_limits(parser: argparse.ArgumentParser, memory: int) -> None:
    """`memory` in MiB: the ceiling unless the arguments name another."""
    parser.add_argument(
        "--full-priority", action="store_true", help="as any other program (default: nice 10, last at the disk)"
    )
    parser.add_argument(
        "--max-memory",
        type=mib,
        default=memory,
        metavar="MIB",
        help=f"a job fails rather than take more (default {memory}, 0: no end)",
    )


def mib(text: str) -> int:
    value = int(text)
    if value and value < LEAST_MIB:
        raise argparse.ArgumentTypeError(f"{value} MiB is too little: {LEAST_MIB} or more, or 0 for no end")
    return value


def apply_limits(full_priority: bool, max_memory: int) -> None:
    """For this process, before its threads begin: they take it over. Raises OSError, ValueError."""
    if max_memory:
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = max_memory << 20
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if most < 0 else min(wanted, most), most))
    if full_priority:
        return
    os.setpriority(os.PRIO_PROCESS, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    libc = ctypes.CDLL(None, use_errno=True)
    number = _IOPRIO_SET.get(os.uname().machine)
    if number is not None and libc.syscall(number, _WHO_PROCESS, 0, _BEST_EFFORT_LOWEST) != 0:
        raise OSError(ctypes.get_errno(), "ioprio_set failed")


def unlimited(child: int) -> None:
    """Take the ceiling off a child process, which took it over: it is for the service, not for what a tool needs.

    Raises OSError.
    """
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.prlimit(child, resource.RLIMIT_DATA, (most, most))
