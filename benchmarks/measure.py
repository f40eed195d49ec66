"""What the engine's benchmarks share: a quiet machine, runs in turn, time, memory, bytes on the loopback, tables."""

import argparse
import ctypes
import fcntl
import hashlib
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MIB, GIB = 1 << 20, 1 << 30
_TWO_CORES = 1.7
# Of unshare(2) and netdevice(7).
_NEW_NETWORK, _SET_FLAGS, _UP = 0x40000000, 0x8914, 1
_best_core = 0.0
noisy = 0


@dataclass(frozen=True)
class Run:
    """One run of one tool: seconds, bytes that went over the loopback, peak MB of each process that took part."""

    seconds: float
    wire: int = 0
    peaks: tuple[float, ...] = ()
    stored: int = 0
    more: float = 0.0


def arguments(about: str | None, *, gib: int = 8, runs: int = 5) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where disks and targets go")
    parser.add_argument("--gib", type=int, default=gib, help="size of the disk; 3/8 of it is data")
    parser.add_argument("--runs", type=int, default=runs)
    parser.add_argument("--patience", type=float, default=120, metavar="S", help="to wait for a quiet second core")
    return parser


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(dir=parent, prefix="wavelift-benchmark-") as name:
        yield Path(name)


def quiet(patience: float) -> None:
    """Wait until two threads do the work of two cores; after `patience` seconds go on, and count the run as noisy."""
    global _best_core, noisy
    limit = time.monotonic() + patience
    while True:
        _best_core = max(_best_core, _hashing(1))
        if _hashing(2) >= _TWO_CORES * _best_core:
            return
        if time.monotonic() > limit:
            noisy += 1
            return
        time.sleep(1)


def _hashing(threads: int) -> float:
    """Bytes a second of SHA-256 over so many threads."""
    data, rounds = bytes(MIB), 100
    workers = [threading.Thread(target=lambda: [hashlib.sha256(data) for _ in range(rounds)]) for _ in range(threads)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return threads * rounds * MIB / (time.perf_counter() - began)


def in_turns(
    tools: Mapping[str, Callable[[], Run]],
    args: argparse.Namespace,
    before: Callable[[str], None],
    after: Callable[[str], None],
) -> dict[str, list[Run]]:
    """A B A B ...: `before` prepares each tool's run, then the machine is waited for; `after` checks what it did."""
    found: dict[str, list[Run]] = {name: [] for name in tools}
    for number in range(args.runs):
        for name, tool in tools.items():
            before(name)
            quiet(args.patience)
            run = tool()
            after(name)
            found[name].append(run)
            print(f"{number + 1}/{args.runs} {name}: {run.seconds:.2f} s", file=sys.stderr, flush=True)
    return found


def drop_caches() -> None:
    """Needs root; raises OSError."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def own_loopback() -> None:
    """From now on this process and its children have a loopback to themselves, where only their bytes are counted.

    Before any thread is started. Needs root; without it, whatever else talks on the machine's loopback is counted too.
    """
    if os.geteuid() or ctypes.CDLL(None, use_errno=True).unshare(_NEW_NETWORK):
        print("no loopback of our own: bytes of other programs are counted too", file=sys.stderr)
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", _UP))


def loopback() -> int:
    """Bytes received on the loopback since there is one."""
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.partition(":")[2].split()[0])


def peak(pid: int) -> float:
    """The most memory a process ever had, MB; 0 once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return int(status.split("VmHWM:")[1].split()[0]) / 1e3 if "VmHWM:" in status else 0.0


def command(*words: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Run:
    """Run a program to its end. Its own figure after the end would count what this process had when it forked."""
    before, began, most = loopback(), time.perf_counter(), 0.0
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [str(word) for word in words], cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
        while process.poll() is None:
            most = max(most, peak(process.pid))
            time.sleep(0.005)
        seconds = time.perf_counter() - began
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{words} ended with {process.returncode}: {said.read().decode(errors='replace')}")
    return Run(seconds, loopback() - before, (most,))


def data_ranges(path: Path) -> Iterator[tuple[int, int]]:
    """(start, end) of what is not a hole."""
    fd = os.open(path, os.O_RDONLY)
    try:
        size, at = os.fstat(fd).st_size, 0
        while at < size:
            try:
                start = os.lseek(fd, at, os.SEEK_DATA)
            except OSError:  # nothing but a hole up to the end
                return
            at = os.lseek(fd, start, os.SEEK_HOLE)
            yield start, at
    finally:
        os.close(fd)


def warm(path: Path) -> None:
    """Read it once, so that all tools find it in the page cache."""
    buffer = bytearray(MIB)
    with path.open("rb", buffering=0) as file:
        for start, end in data_ranges(path):
            file.seek(start)
            while start < end:
                start += file.readinto(memoryview(buffer)[: end - start])


def require_same(source: Path, target: Path) -> None:
    """Raises RuntimeError with the first MiB in which they differ; the target may be longer."""
    spans = sorted({at // MIB for path in (source, target) for span in data_ranges(path) for at in _mibs(*span)})
    size = source.stat().st_size
    with source.open("rb", buffering=0) as left, target.open("rb", buffering=0) as right:
        for number in spans:
            start, length = number * MIB, min(MIB, size - number * MIB)
            if length > 0 and os.pread(left.fileno(), length, start) != os.pread(right.fileno(), length, start):
                raise RuntimeError(f"{target} differs from {source} within the MiB from byte {start} on")


def _mibs(start: int, end: int) -> range:
    return range(start // MIB * MIB, end, MIB)


def have(*programs: str) -> bool:
    """Whether they are installed; says which are not, as the table then lacks them."""
    missing = [program for program in programs if shutil.which(program) is None]
    for program in missing:
        print(f"{program} is not installed: left out", file=sys.stderr)
    return not missing


def spread(values: Sequence[float], digits: int = 2) -> str:
    """median (least to most)"""
    middle = statistics.median(values)
    return f"{middle:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def seconds(runs: Sequence[Run]) -> str:
    return spread([run.seconds for run in runs])


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print(f"\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |")
    if noisy:
        print(f"\nThe machine was never quiet before {noisy} of the runs: not figures to keep.")
    sys.stdout.flush()
