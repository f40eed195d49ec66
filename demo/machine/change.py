"""Changing the data disk the way a server does while it runs, without a mount and without root."""

import hashlib
import tempfile
from pathlib import Path

from demo.machine.command import CommandFailed, run
from demo.machine.data import CHECKSUMS, GENERATION, MIB, format_checksums, noise, parse_checksums, text
from demo.machine.disk import PARTITION_START

_REWRITTEN = "database/padding.bin"


def write_generation(data_img: Path, n: int) -> None:
    """Make `data_img` hold generation `n`: one new file, one rewritten, checksums and number to match."""
    if n < 2:
        raise ValueError(f"generation {n}: the disk is built with generation 1, changes start at 2")
    partition = f"{data_img}?offset={PARTITION_START}"
    # Replays the journal of a server that was not shut down; 1 means "repaired".
    run(["e2fsck", "-p", partition], accept=(0, 1))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        new = {
            f"images/upload-{n}.bin": noise(f"upload-{n}", 2 * MIB + 4096 * n + 5),
            f"logs/access-{n + 2}.log": text(f"access-{n + 2}", 5_000),
            _REWRITTEN: bytes([n % 256]) * (4 * MIB - 4096) + noise(f"padding-{n}", 4096),
        }
        digests = parse_checksums(_read(partition, CHECKSUMS, work))
        digests |= {name: hashlib.sha256(content).hexdigest() for name, content in new.items()}
        new[CHECKSUMS] = format_checksums(digests).encode()
        new[GENERATION] = f"{n}\n".encode()
        _write(partition, new, work)
    run(["e2fsck", "-fn", partition])


def read_generation(data_img: Path) -> int:
    """The generation that `data_img` holds."""
    with tempfile.TemporaryDirectory() as folder:
        return int(_read(f"{data_img}?offset={PARTITION_START}", GENERATION, Path(folder)))


def _read(partition: str, name: str, work: Path) -> str:
    target = work / "read"
    run(["debugfs", "-R", f"dump /{name} {target}", partition])
    return target.read_text()


def _write(partition: str, files: dict[str, bytes], work: Path) -> None:
    script = work / "script"
    lines = []
    for number, (name, content) in enumerate(files.items()):
        source = work / f"file-{number}"
        source.write_bytes(content)
        if _exists(partition, name):
            lines.append(f"rm /{name}")
        lines += [f"write {source} /{name}", f"sif /{name} uid 0", f"sif /{name} gid 0"]
    script.write_text("\n".join(lines) + "\n")
    command = ["debugfs", "-w", "-f", str(script), partition]
    output = run(command)
    # debugfs ends with status 0 whatever its commands did; a failed one names itself in the output.
    for line in output.splitlines():
        if line and not line.startswith(("debugfs", "Allocated inode:")):
            raise CommandFailed(command, 0, output)


def _exists(partition: str, name: str) -> bool:
    return "Inode:" in run(["debugfs", "-R", f"stat /{name}", partition])
