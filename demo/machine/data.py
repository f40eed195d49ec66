"""What lies on the data disk: files that anyone can make again, of every kind a copy engine meets."""

import hashlib
import json
import random
from pathlib import Path

MIB = 1024 * 1024
CHECKSUMS = "SHA256SUMS"
GENERATION = "generation"


def noise(name: str, size: int) -> bytes:
    """Bytes that do not compress, the same for the same name."""
    return random.Random(f"wavelift-demo/{name}").randbytes(size)


def text(name: str, lines: int) -> bytes:
    """Lines of an access log, compressible as logs are."""
    source = random.Random(f"wavelift-demo/{name}")
    rows = []
    for number in range(lines):
        address = ".".join(str(source.randrange(1, 255)) for _ in range(4))
        item, size = source.randrange(5000), source.randrange(100, 90000)
        rows.append(f'{address} - - [{number:08d}] "GET /shop/item/{item} HTTP/1.1" 200 {size}\n')
    return "".join(rows).encode()


def write_files(tree: Path) -> None:
    """Fill `tree` with generation 1."""
    for folder in ("images", "logs", "database"):
        (tree / folder).mkdir(parents=True)
    for number in range(8):
        (tree / f"images/photo-{number}.bin").write_bytes(noise(f"photo-{number}", MIB + number * 4096 + 17))
    for number in range(4):
        (tree / f"logs/access-{number}.log").write_bytes(text(f"access-{number}", 20_000))
    orders = [{"order": n, "state": "shipped", "customer": n % 97} for n in range(20_000)]
    (tree / "database/orders.json").write_text(json.dumps(orders, indent=1))
    (tree / "database/padding.bin").write_bytes(b"\xa5" * (4 * MIB))
    with (tree / "database/sparse.bin").open("wb") as sparse:
        for offset in (0, 3 * MIB + 4096, 8 * MIB - 4096):
            sparse.seek(offset)
            sparse.write(noise(f"sparse-{offset}", 4096))
    (tree / "empty").write_bytes(b"")
    (tree / GENERATION).write_text("1\n")
    names = sorted(
        str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file() and path.name != GENERATION
    )
    digests = {name: hashlib.sha256((tree / name).read_bytes()).hexdigest() for name in names}
    (tree / CHECKSUMS).write_text(format_checksums(digests))


def format_checksums(digests: dict[str, str]) -> str:
    """What `sha256sum` would print."""
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))


def parse_checksums(content: str) -> dict[str, str]:
    """The digests by name, from what `sha256sum` printed."""
    return {name: digest for digest, name in (line.split("  ", 1) for line in content.splitlines())}
