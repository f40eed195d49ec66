"""Time and peak memory for a sparse disk of 16 TiB: full copy, an increment by scan, and both read back.

python -m benchmarks.sparse_16t --folder /var/tmp --gib 2

The files are as large as ext4 allows, a little less than 16 TiB; they take what is in them.
"""

import argparse
import os
import random
import tempfile
from pathlib import Path

from benchmarks.measure import Run
from benchmarks.services import Services

MIB = 1 << 20
SIZE = (16 << 40) - MIB
PIECE = 8 * MIB


def scatter(path: Path, count: int, length: int, seed: int) -> None:
    """Pieces of noise at random places."""
    places = random.Random(seed)
    with path.open("r+b") as file:
        for _ in range(count):
            file.seek(places.randrange((SIZE - length) // 65536) * 65536)
            file.write(os.urandom(length))


def show(what: str, run: Run) -> None:
    agent, gateway = run.peaks
    print(
        f"{what:<22} {run.seconds:7.1f} s, {run.wire / 1e6:8.1f} MB, peak MB: agent {agent:.0f}, gateway {gateway:.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--gib", type=int, default=2, help="of data in the disk")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        source, volume = folder / "source", folder / "volume"
        for path in (source, volume):
            with path.open("wb") as file:
                file.truncate(SIZE)
        scatter(source, args.gib * 1024 * MIB // PIECE, PIECE, 1)
        with Services(folder / "services", source, volume, SIZE) as pair:
            run, result = pair.copy(1)
            show("full copy", run)
            show("read back", pair.verify(1, result["root"]))
            pair.commit(1)
            scatter(source, 400, 65536, 2)
            run, result = pair.copy(2, 1)
            show("400 blocks, by scan", run)
            show("read back", pair.verify(2, result["root"]))


if __name__ == "__main__":
    main()
