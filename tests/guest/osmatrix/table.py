"""`python -m tests.guest.osmatrix.table`: the results of the last run of each machine, for docs/os-matrix.md."""

from __future__ import annotations

import json

from tests.guest.osmatrix.cells import CELLS
from tests.guest.osmatrix.test_matrix import RESULTS

_HEAD = """\
# OS matrix

What `make test-os-matrix` built from Debian's packages, moved to a machine that has virtio and nothing else, and booted
there: with its names, file systems, network cards and addresses, and without a unit that failed. This page is made by
that command. Machines run under emulation on two cores, two at a time: seconds compare with each other only.
"""


def main() -> None:
    rows = {row["machine"]: row for row in map(json.loads, RESULTS.read_text().splitlines())}
    columns = [*CELLS[0].row(), "as it was", "prepared in s", "boots in s", "kernel"]
    print(_HEAD)
    print(f"| {' | '.join(columns)} |")
    print("|" + "---|" * len(columns))
    for cell in CELLS:
        row = {**cell.row(), **rows.get(cell.name, {"boots in s": "not run, or failed"})}
        print(f"| {' | '.join(str(row.get(column, '-')).replace('|', '/') for column in columns)} |")


if __name__ == "__main__":
    main()
