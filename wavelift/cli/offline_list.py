"""`wavelift offline list`: what disks hold, as far as that can be seen without a key."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wavelift.archive.survey import SeenArchive, SeenGeneration, survey
from wavelift.cli.report import SAME, Watch, run_reporting
from wavelift.cli.units import size
from wavelift.stores.disk_label import DiskRefused, read_label
from wavelift.stores.offline import OfflineStore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="where a disk is mounted")


def run(args: argparse.Namespace) -> int:
    def work(watch: Watch) -> int:
        watch.step("listing")
        stores, blank = _sets(args.folders)
        told = [_about(store) for store in stores]
        lines = [line for each in told for line in _lines(each)]
        lines += [f"{each['label']}  {each['folder']}  ready, of no set yet" for each in blank]
        watch.display.result({"sets": told, "ready": blank}, "\n".join(lines))
        return SAME

    return run_reporting(args.json, work, lambda: "Nothing was written.")


def _sets(folders: list[Path]) -> tuple[list[OfflineStore], list[dict[str, str]]]:
    """Raises `DiskRefused`, OSError."""
    sets: dict[str, list[Path]] = {}
    blank = []
    for folder in folders:
        label = read_label(folder)
        if label is None:
            raise DiskRefused(f"{folder} is no offline disk.", "Check that the disk is mounted there.")
        if label.set is None:
            blank.append({"label": label.label, "folder": str(folder)})
        else:
            sets.setdefault(label.set, []).append(folder)
    return [OfflineStore(each) for each in sets.values()], blank


def _about(store: OfflineStore) -> dict[str, Any]:
    return {
        "set": store.set_id,
        "disks": [
            {
                "label": disk.label.label,
                "number": disk.label.number,
                "folder": str(disk.folder),
                "made_at": disk.label.made_at,
                "size": disk.size,
                "free": disk.free,
            }
            for disk in store.disks
        ],
        "missing": list(store.absent),
        "archives": [_archive(archive) for archive in survey(store)],
    }


def _archive(archive: SeenArchive) -> dict[str, Any]:
    about = archive.about
    return {
        "prefix": archive.prefix,
        "id": None if about is None else about.id,
        "sealed": archive.sealed,
        "key": None if about is None else about.key,
        "generations": [_generation(each) for each in archive.finished],
        "unfinished": [each.number for _, each in sorted(archive.generations.items()) if each.put_at is None],
    }


def _generation(each: SeenGeneration) -> dict[str, Any]:
    """Bytes and packs are those on the disks that are here; the rest is in its record, which may be sealed."""
    record = each.record
    made_at = each.put_at if record is None else record.made_at
    return {
        "generation": each.number,
        "packs": each.packs,
        "pack_bytes": each.pack_bytes,
        "made_at": None if made_at is None else datetime.fromtimestamp(made_at, UTC).isoformat(timespec="seconds"),
        "disk": None if record is None else record.disk,
        "size": None if record is None else record.size,
        "base": None if record is None else record.base,
        "root": None if record is None else record.root,
    }


def _lines(told: dict[str, Any]) -> Iterator[str]:
    yield f"set {told['set']}"
    for disk in told["disks"]:
        yield f"  {disk['label']}  {disk['folder']}  {size(disk['size'])}, {size(disk['free'])} free"
    for label in told["missing"]:
        yield f"  {label}  missing"
    for archive in told["archives"]:
        sealed = f"sealed, key {archive['key']}" if archive["sealed"] else "not sealed"
        yield f"  archive {archive['prefix'] or archive['id']} ({sealed})"
        for each in archive["generations"]:
            root = "root sealed" if each["root"] is None else f"root {each['root']}"
            disk = "" if each["disk"] is None else f" of {each['disk']} ({size(each['size'])})"
            kept = f"{size(each['pack_bytes'])} in {each['packs']} packs"
            yield f"    generation {each['generation']}{disk}  {each['made_at']}  {kept}  {root}"
        for number in archive["unfinished"]:
            yield f"    generation {number}  not finished"
