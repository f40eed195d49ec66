"""The part of the build that runs inside a fakeroot session: `python -m demo.machine.assemble WORK TARGET`."""

import sys
from pathlib import Path

from demo.machine.recipe import assemble

if __name__ == "__main__":
    assemble(Path(sys.argv[1]), Path(sys.argv[2]))
