"""`python -m demo.machine DIR`: build the demo server's disks into a folder."""

import argparse
import time
from pathlib import Path

from demo.machine.recipe import build


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.machine", description=__doc__)
    parser.add_argument("directory", type=Path, help="where the disks go; used again when they are there")
    arguments = parser.parse_args()
    started = time.monotonic()
    machine = build(arguments.directory)
    print(f"{machine.system}\n{machine.data}\n{time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
