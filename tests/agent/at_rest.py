"""Archives that a test's agent fills, and their content as a plain reader finds it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.localcloud.conftest import KEY, REGION, SECRET
from wavelift.archive.archive import Archive
from wavelift.archive.descriptor import ArchiveDescriptor, BucketArchive, DisksArchive
from wavelift.archive.opening import open_archive
from wavelift.blocks.digest import BLOCK, DIGEST
from wavelift.blocks.pack import PackReader, from_memory
from wavelift.localcloud.server import LocalCloud
from wavelift.service.client import ServiceClient
from wavelift.stores.base import Corrupted, NotThere

from .conftest import MIB, MIGRATION, Stack, succeeded

PACK = 2 * MIB
BUCKET = "waves"


def bucket_of(cloud: LocalCloud, prefix: str) -> BucketArchive:
    """With keys that last."""
    return BucketArchive(
        service="oss",
        endpoint=f"http://{cloud.oss_endpoint}",
        bucket=BUCKET,
        prefix=prefix,
        region=REGION,
        by_path=True,
        access_key_id=KEY,
        access_key_secret=SECRET,
        key=secrets.token_hex(32),
        max_pack_bytes=PACK,
    )


def with_session(archive: BucketArchive, cloud: LocalCloud, seconds: float) -> BucketArchive:
    """The same with temporary keys, of a role."""
    issued = cloud.accounts.issue(seconds, role="acs:ram::1234567890123456:role/agent", session="agent")
    return archive.model_copy(
        update={"access_key_id": issued.key, "access_key_secret": issued.secret, "token": issued.token}
    )


def disks_of(*folders: Path) -> DisksArchive:
    return DisksArchive(
        folders=[str(folder) for folder in folders], prefix="web/sda", key=secrets.token_hex(32), max_pack_bytes=PACK
    )


def spec(
    generation: int, base: int | None, archives: dict[str, ArchiveDescriptor], bandwidth: str | None = None
) -> dict[str, Any]:
    disks = [{"disk": disk, "sink": archive.model_dump()} for disk, archive in archives.items()]
    about = {"kind": "replicate", "migration": MIGRATION, "generation": generation, "base": base}
    return {**about, "disks": disks, "bandwidth": bandwidth}


def fill(stack: Stack, generation: int, base: int | None, **archives: ArchiveDescriptor) -> dict[str, Any]:
    with stack.agent_client as client:
        key = f"{MIGRATION}/{generation}/copy"
        client.submit(key, spec(generation, base, archives))
        return succeeded(client, key)


def checked(
    client: ServiceClient,
    generation: int,
    step: str = "check",
    base: Mapping[str, Any] | None = None,
    **archives: ArchiveDescriptor,
) -> dict[str, Any]:
    """`base` is the result of an earlier check, which need not be made again."""
    key = f"{MIGRATION}/{generation}/{step}"
    roots = {} if base is None else {each["disk"]: each["root"] for each in base["disks"]}
    disks = [
        {"disk": disk, "archive": archive.model_dump(), "base_root": roots.get(disk)}
        for disk, archive in archives.items()
    ]
    client.submit(key, {"kind": "check", "migration": MIGRATION, "generation": generation, "disks": disks})
    return succeeded(client, key)


def content(archive: Archive, generation: int) -> bytes:
    """What the map names, out of the packs of the chain; whatever they hold else is of other times."""
    newest = archive.load(generation)
    found = archive.map(newest)
    disk = bytearray(newest.size)
    left = {
        start: digest
        for start in range(0, newest.size, BLOCK)
        if (digest := found.digests(start // BLOCK, 1)) != bytes(DIGEST)
    }
    for each in archive.chain(generation):
        for row in archive.packs(each):
            try:
                whole = archive.store.get(row.key(each.generation))
            except (Corrupted, NotThere):
                continue
            reader = PackReader(from_memory(memoryview(whole)))
            for record, data in reader.records():
                for at in range(len(record.digests) // DIGEST):
                    start = record.offset + at * BLOCK
                    if left.get(start) == record.digests[at * DIGEST : (at + 1) * DIGEST]:
                        disk[start : start + BLOCK] = data[at * BLOCK : (at + 1) * BLOCK]
                        del left[start]
    assert not left
    return bytes(disk)


def held(descriptor: ArchiveDescriptor, generation: int) -> bytes:
    return content(open_archive(descriptor), generation)


def packs(descriptor: ArchiveDescriptor, generation: int) -> list[int]:
    """Sizes of the objects that lie there, whatever attempt put them."""
    return [entry.size for entry in open_archive(descriptor).bare.list(f"packs/{generation}/")]
