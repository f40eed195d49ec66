"""What the sizes in docs/format.md cost: block, pack, segment, and the seal.

python -m benchmarks.format_sizes --folder /var/tmp --gib 1

Block and segment size are constants of the format: each value is tried in a process of its own that sets the constant
before the engine is loaded, and then runs the engine as it is. The pack size is what the sink's descriptor says.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROUNDS = 3
MIB, GIB = 1 << 20, 1 << 30
PAGE = 8192
KEY = "the key of a benchmark, and of nothing else"
NARROW = 100e6 / 8


def page(source: random.Random) -> bytes:
    """A database's page: rows that compress to about a half, some of it not at all."""
    rows = b"".join(b"%012d|customer|%s|open|" % (source.getrandbits(39), source.randbytes(24)) for _ in range(160))
    return rows[:PAGE].ljust(PAGE, b"\0")


class Memory:
    """A disk in memory."""

    def __init__(self, content: bytearray) -> None:
        self.content = memoryview(content)

    def readinto(self, offset: int, view: memoryview) -> None:
        view[:] = self.content[offset : offset + len(view)]


class Counting:
    """A sink that counts what would go over the wire."""

    def __init__(self) -> None:
        self.taken = 0

    def put(self, sequence: int, pack: memoryview) -> Any:
        self.taken += len(pack)

    def close(self) -> None:
        pass


def database(size: int, writes: int, folder: Path) -> dict[str, float]:
    """Random 8 KiB writes, then an increment against the base's block map: bytes on the wire."""
    from wavelift.blocks.blockmap import MapStore
    from wavelift.blocks.compress import Compression
    from wavelift.blocks.copy import CopyDisk, CopySettings, copy_disks
    from wavelift.blocks.digest import BLOCK, digests
    from wavelift.blocks.plan import DATA_RANGE, Range
    from wavelift.blocks.worktable import WorkTable

    source = random.Random(1)
    pages = [page(source) for _ in range(512)]
    disk = bytearray(b"".join(source.choice(pages) for _ in range(size // PAGE)))
    work = WorkTable(folder / "table", size)
    for start in range(0, size, MIB):
        work.write(start, digests(memoryview(disk)[start : start + MIB]))
    base = MapStore(folder / "maps").freeze("sda", 1, work)
    work.close()
    for _ in range(writes):
        place = source.randrange(size // PAGE) * PAGE
        disk[place : place + PAGE] = page(source)
    sinks: list[Counting] = []

    def open_sink() -> Counting:
        sinks.append(Counting())
        return sinks[-1]

    ranges = [Range(start, min(size, start + DATA_RANGE), False) for start in range(0, size, DATA_RANGE)]
    sent: list[int] = []
    one = CopyDisk("sda", "d-1", size, Memory(disk), ranges, open_sink, 4 * MIB, base)
    began = time.perf_counter()
    copy_disks(CopySettings("bench", 2, compression=Compression(1)), [one], lambda ack: sent.append(ack.sent_bytes))
    return {
        "block": BLOCK,
        "sent": sum(sent),
        "wire": sum(sink.taken for sink in sinks),
        "digests": size // BLOCK * 32,
        "seconds": time.perf_counter() - began,
    }


def segments(blocks: int, folder: Path) -> dict[str, float]:
    """A map of so many blocks without zeroes, then two increments: time, bytes written, memory of a table."""
    from wavelift.blocks.blockmap import MapStore
    from wavelift.blocks.digest import BLOCK, SEGMENT, TABLE
    from wavelift.blocks.worktable import WorkTable

    source = random.Random(2)
    work, store = WorkTable(folder / "table", blocks * BLOCK), MapStore(folder / "maps")
    for start in range(0, blocks, 1 << 14):
        work.write(start * BLOCK, source.randbytes(32 << 14))

    def freeze(generation: int, changed: Iterator[int]) -> tuple[float, int]:
        before = {path.name for path in (folder / "maps/segments").iterdir()}
        for block in changed:
            work.write(block * BLOCK, source.randbytes(32))
        work.sync()
        began = time.perf_counter()
        found = store.freeze("sda", generation, work)
        taken = time.perf_counter() - began
        new = {path for path in (folder / "maps/segments").iterdir() if path.name not in before}
        return taken, sum(path.stat().st_size for path in new) + len(found.segments)

    full, _ = freeze(1, iter(()))
    spread, spread_bytes = freeze(2, (source.randrange(blocks) for _ in range(200)))
    hot, hot_bytes = freeze(3, iter(range(4096)))
    work.close()
    return {
        "segment": SEGMENT,
        "table": TABLE,
        "full": full,
        "spread": spread,
        "spread_bytes": spread_bytes,
        "hot": hot,
        "hot_bytes": hot_bytes,
    }


def with_constant(name: str, value: int, what: str, amount: int, more: int, folder: Path) -> dict[str, float]:
    """Run one of the above in a process in which a constant of the format is another."""
    program = (
        f"import json, pathlib, wavelift.blocks.digest as d\nd.{name} = {value}\n"
        "d.SEGMENT_BLOCKS = d.SEGMENT // d.BLOCK\nd.TABLE = d.SEGMENT_BLOCKS * d.DIGEST\n"
        f"from benchmarks.format_sizes import {what}\n"
        f"print(json.dumps({what}({amount}, {f'{more}, ' if more else ''}pathlib.Path({str(folder)!r}))))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return dict(json.loads(run.stdout))


def full_copy(disk: bytearray, pack_bytes: int, folder: Path) -> float:
    """Bytes a second from memory to a volume behind a gateway in another process, durable at the end."""
    import threading

    from wavelift.blocks.compress import Compression
    from wavelift.blocks.copy import CopyDisk, CopySettings, copy_disks
    from wavelift.blocks.descriptor import SinkDescriptor
    from wavelift.blocks.plan import DATA_RANGE, Range
    from wavelift.blocks.sink import open_sink
    from wavelift.service import tokens

    (folder / "devices").mkdir()
    volume = folder / "volume"
    with volume.open("wb") as file:
        # Written before, as a volume's blocks are: a new file would measure the file system.
        for _ in range(len(disk) // MIB):
            file.write(b"o" * MIB)
    (folder / "devices/virtio-1").symlink_to(volume)
    (folder / "key").write_text(KEY)
    arguments = ["--state", str(folder / "state"), "--devices", str(folder / "devices")]
    arguments += ["--key-file", str(folder / "key"), "--listen", "127.0.0.1:0"]
    command = [sys.executable, "-m", "wavelift.cli.main", "gateway", *arguments]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        token = tokens.issue(KEY, migration="bench", scope="write", volumes=["d-1"], lifetime=600)
        descriptor = SinkDescriptor(url=url, volume="d-1", generation=1, token=token)
        ranges = [Range(start, start + DATA_RANGE, False) for start in range(0, len(disk), DATA_RANGE)]
        stop = threading.Event()
        one = CopyDisk("sda", "d-1", len(disk), Memory(disk), ranges, lambda: open_sink(descriptor, stop), pack_bytes)
        began = time.perf_counter()
        copy_disks(CopySettings("bench", 1, compression=Compression.NEVER), [one], lambda ack: None)
        taken = time.perf_counter() - began
    finally:
        server.terminate()
        server.wait()
    if volume.read_bytes() != disk:
        raise RuntimeError("the volume does not hold the disk")
    return len(disk) / taken


def sealing(rounds: int) -> dict[str, float]:
    """GB/s of one core: a 4 MiB pack written and read, plain and sealed."""
    from wavelift.blocks.crypto import KeyEncryptionKey, KeyRing, MigrationKey
    from wavelift.blocks.digest import digests
    from wavelift.blocks.pack import PackDisk, PackHeader, PackReader, PackWriter, from_memory

    wrapping = KeyEncryptionKey(bytes(32))
    key, ring = MigrationKey.create(wrapping), KeyRing([wrapping])
    header = PackHeader("bench", 1, 1, (PackDisk("sda", "d-1", GIB),))
    data = random.Random(3).randbytes(MIB)
    buffer, scratch = bytearray(8 * MIB), bytearray(MIB)

    def write(with_key: MigrationKey | None) -> memoryview:
        writer = PackWriter(buffer, header, with_key)
        for number in range(4):
            view = writer.slot(MIB)
            view[:] = data
            writer.add_data(0, number * MIB, view, digests(view))
        return writer.finish()

    def read(pack: memoryview) -> None:
        for _ in PackReader(from_memory(pack), scratch, ring).records():
            pass

    def speed(work: Callable[[], object]) -> float:
        work()
        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
        return 4 * MIB / statistics.median(times) / 1e9

    found = {"write plain": speed(lambda: write(None)), "write sealed": speed(lambda: write(key))}
    for name, with_key in (("read plain", None), ("read sealed", key)):
        pack = memoryview(bytes(write(with_key)))
        found[name] = speed(lambda pack=pack: read(pack))  # type: ignore[misc]
    return found


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def in_turns(values: list[int], run: Callable[[int, Path], Any], parent: Path) -> dict[int, list[Any]]:
    """Each value once a round, in a folder that is new each time."""
    found: dict[int, list[Any]] = {value: [] for value in values}
    for _ in range(ROUNDS):
        for value in values:
            folder = Path(tempfile.mkdtemp(dir=parent))
            try:
                found[value].append(run(value, folder))
            finally:
                shutil.rmtree(folder)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--gib", type=int, default=1, help="size of the disks that are copied")
    args = parser.parse_args()
    size = args.gib * GIB
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="benchmark-") as name:
        parent = Path(name)
        print(
            "| block | changed blocks, MiB | on the wire, MiB | at 100 Mbit/s, s | digests, MiB per TiB | CPU side, s |"
        )
        print("|---|---|---|---|---|---|")
        blocks = in_turns(
            [16 << 10, 64 << 10, 256 << 10, MIB],
            lambda value, folder: with_constant("BLOCK", value, "database", size, 2000 * args.gib, folder),
            parent,
        )
        for value, runs in blocks.items():
            row = medians(runs)
            print(
                f"| {value >> 10} KiB | {row['sent'] / MIB:.0f} | {row['wire'] / MIB:.1f} | {row['wire'] / NARROW:.1f} "
                f"| {row['digests'] * 1024 / args.gib / MIB:.0f} | {row['seconds']:.2f} |",
                flush=True,
            )
        print("\n| pack | MB/s, median | least | most | sent again after a cut, at most, MiB |\n|---|---|---|---|---|")
        disk = bytearray(random.Random(4).randbytes(64 * MIB) * (size // (64 * MIB)))
        packs = in_turns(
            [2 * MIB, 4 * MIB, 8 * MIB, 16 * MIB, 32 * MIB, 64 * MIB],
            lambda value, folder: full_copy(disk, value, folder),
            parent,
        )
        for value, speeds in packs.items():
            middle, low, high = (each(speeds) / 1e6 for each in (statistics.median, min, max))
            print(f"| {value // MIB} MiB | {middle:.0f} | {low:.0f} | {high:.0f} | {4 * value // MIB} |", flush=True)
        print("\n| segment | table, KiB | full map, s | 200 blocks, ms | KiB | hot region, ms | KiB |")
        print("|---|---|---|---|---|---|---|")
        tables = in_turns(
            [64 * MIB, 256 * MIB, GIB, 4 * GIB],
            lambda value, folder: with_constant("SEGMENT", value, "segments", 1 << 20, 0, folder),
            parent,
        )
        for value, runs in tables.items():
            row = medians(runs)
            print(
                f"| {value // MIB} MiB | {row['table'] / 1024:.0f} | {row['full']:.2f} | {row['spread'] * 1e3:.0f} "
                f"| {row['spread_bytes'] / 1024:.0f} | {row['hot'] * 1e3:.0f} | {row['hot_bytes'] / 1024:.0f} |",
                flush=True,
            )
        print("\n| pack of 4 MiB, one core | GB/s |\n|---|---|")
        for what, speed in sealing(60).items():
            print(f"| {what} | {speed:.2f} |")


if __name__ == "__main__":
    main()
