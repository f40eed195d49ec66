"""Live guests: QEMU machines without an operating system, whose devices' writes are injected by its monitor."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from wavelift.blocks.errors import SourceError
from wavelift.sources.base import Consistency, PointInTime
from wavelift.sources.qemu import QemuDisk, QemuGuest, QemuPointInTime
from wavelift.sources.qmp import GuestGone, MonitorBusy, Qmp
from wavelift.sources.together import Since, open_all

MIB = 1 << 20
KIB = 1 << 10


class Machine:
    """A machine without anything to boot, with disks `a`, `b` ... and two monitors: ours and the test's."""

    def __init__(self, folder: Path, **disks: int) -> None:
        self.folder = folder
        self.images: dict[str, tuple[Path, str]] = {}
        for name, size in disks.items():
            kind = "raw" if name.startswith("raw") else "qcow2"
            path = folder / f"{name}.{kind}"
            subprocess.run(["qemu-img", "create", "-q", "-f", kind, path, str(size)], check=True)
            self.images[name] = path, kind
        self.monitor = folder / "qmp"
        self.start()

    def start(self) -> None:
        command = ["qemu-system-x86_64", "-accel", "tcg", "-m", "32", "-display", "none", "-nodefaults"]
        for socket_ in (self.monitor, self.folder / "test"):
            socket_.unlink(missing_ok=True)
            command += ["-qmp", f"unix:{socket_},server=on,wait=off"]
        for name, (path, kind) in self.images.items():
            command += [
                "-blockdev",
                f"driver={kind},node-name=node-{name},discard=unmap,file.driver=file,file.filename={path}",
            ]
            sector = 4096 if name.endswith("4k") else 512
            sectors = f"logical_block_size={sector},physical_block_size={sector}"
            command += ["-device", f"virtio-blk-pci,drive=node-{name},id={name},{sectors}"]
        self.process = subprocess.Popen(command)
        while True:
            try:
                self.qmp = Qmp(self.folder / "test")
                break
            except GuestGone:
                assert self.process.poll() is None
                time.sleep(0.02)

    def stop(self, *, kill: bool = False) -> None:
        if kill:
            self.process.kill()
        elif self.process.poll() is None:
            self.qmp.execute("quit")
        self.qmp.close()
        self.process.wait(20)

    def io(self, name: str, command: str) -> None:
        line = f'qemu-io -d /machine/peripheral/{name}/virtio-backend "{command}"'
        answer = self.qmp.execute("human-monitor-command", {"command-line": line})
        assert "error" not in answer.lower() and "failed" not in answer.lower(), answer

    def content(self, name: str) -> bytes:
        """What the guest sees now, read by a monitor's own backup while nothing is injected."""
        target = self.folder / "reference.raw"
        self.qmp.execute(
            "drive-backup",
            {"device": f"node-{name}", "job-id": "ref", "target": str(target), "sync": "full", "format": "raw"},
        )
        while "ref" in self.jobs():
            time.sleep(0.01)
        content = target.read_bytes()
        target.unlink()
        return content

    def jobs(self) -> list[str]:
        return [job["id"] for job in self.qmp.execute("query-jobs")]

    def left(self) -> list[str]:
        """All there is of Wavelift in it, bitmaps apart."""
        nodes = [node["node-name"] for node in self.qmp.execute("query-named-block-nodes", {"flat": True})]
        exports = [export["id"] for export in self.qmp.execute("query-block-exports")]
        files = [f"fdset {found['fdset-id']}" for found in self.qmp.execute("query-fdsets")]
        return [name for name in [*nodes, *exports, *self.jobs(), *files] if name.startswith(("wavelift", "fdset"))]

    def bitmaps(self, name: str) -> list[str]:
        found = [block["inserted"] for block in self.qmp.execute("query-block") if "inserted" in block]
        return [
            bitmap["name"]
            for inserted in found
            if inserted["node-name"] == f"node-{name}"
            for bitmap in inserted.get("dirty-bitmaps", [])
        ]


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Any]:
    made: list[Machine] = []

    def make(**disks: int) -> Machine:
        made.append(Machine(tmp_path, **disks))
        return made[-1]

    yield make
    for machine in made:
        if machine.process.poll() is None:
            machine.stop(kill=True)


def read(opened: PointInTime) -> bytes:
    found = bytearray(opened.size)
    for extent in opened.extents():
        if not extent.zero:
            view = memoryview(found)[extent.start : extent.start + extent.length]
            opened.readinto(extent.start, view)
    return bytes(found)


def dirty(opened: QemuPointInTime) -> list[tuple[int, int, bool]]:
    return [(e.start // KIB, e.length // KIB, e.zero) for e in opened.extents() if e.dirty]


def guest_of(machine: Machine, agent: Path | None = None) -> QemuGuest:
    return QemuGuest(machine.monitor, machine.folder / "scratch", agent)


def test_three_cycles_of_two_disks_at_one_instant_each(machines: Any) -> None:
    machine = machines(a=16 * MIB, rawb=8 * MIB)
    guest = guest_of(machine)
    disks = [QemuDisk(guest, name) for name in ("a", "rawb")]
    tokens: list[str | None] = [None, None]
    machine.io("a", "write -P 1 0 6M")
    machine.io("rawb", "write -P 2 1M 1M")
    replicas = [bytearray(16 * MIB), bytearray(8 * MIB)]
    for cycle in range(3):
        before = [machine.content("a"), machine.content("rawb")]
        with ExitStack() as stack:
            opened = open_all(
                stack, [(disk, Since(token, migration="m")) for disk, token in zip(disks, tokens, strict=True)]
            )
            points = [point for point in opened if isinstance(point, QemuPointInTime)]
            assert [point.consistency for point in points] == [Consistency.CRASH] * 2
            assert [point.tracked for point in points] == [cycle > 0] * 2
            # The guest goes on writing, over what is read and beside it.
            machine.io("a", f"write -P {16 + cycle} {cycle}M 128k")
            machine.io("a", f"write -z -u {cycle + 3}M 64k")
            machine.io("rawb", f"write -P {32 + cycle} {cycle * 64}k 64k")
            for point, replica, content in zip(points, replicas, before, strict=True):
                for extent in point.extents():
                    if extent.dirty:
                        part = memoryview(replica)[extent.start : extent.start + extent.length]
                        part[:] = bytes(extent.length)
                        if not extent.zero:
                            point.readinto(extent.start, part)
                assert replica == content
            if cycle:
                last = cycle - 1
                assert dirty(points[0]) == [
                    (last * 1024, 128, False),
                    ((last + 3) * 1024, 64, True),
                    (last * 128 + 5120, 64, True),
                ]
                assert dirty(points[1]) == [(last * 64, 64, False)]
            tokens = [point.token for point in points]
        assert machine.left() == []
        # QEMU drops a guest's discards while a moment is kept.
        machine.io("a", f"discard {cycle * 128 + 5120}k 64k")
    assert machine.qmp.execute("query-status")["status"] == "running"
    disks[0].forget("other")
    assert len(machine.bitmaps("a")) == 2
    disks[0].forget("m")
    assert machine.bitmaps("a") == [] and len(machine.bitmaps("rawb")) == 2


def test_a_cycle_that_is_not_committed_loses_nothing(machines: Any) -> None:
    machine = machines(a=4 * MIB)
    disk = QemuDisk(guest_of(machine), "node-a")
    first = disk.open()
    base = first.token
    first.close()
    for number in range(3):
        machine.io("a", f"write -P 1 {number}M 64k")
        failed = disk.open(base)
        assert dirty(failed) == [(step * 1024, 64, False) for step in range(number + 1)]
        failed.close()
    assert len(machine.bitmaps("a")) == 2
    after = disk.open(base)
    committed = after.token
    after.close()
    nothing = disk.open(committed)
    assert nothing.tracked and dirty(nothing) == [] and base.split(":")[1] not in machine.bitmaps("a")
    nothing.close()


def test_an_agent_killed_in_a_cycle_leaves_a_guest_that_runs_and_bits_that_count(machines: Any) -> None:
    machine = machines(a=4 * MIB)
    disk = QemuDisk(guest_of(machine), "a")
    first = disk.open()
    base = first.token
    first.close()
    machine.io("a", "write -P 1 1M 64k")
    program = (
        "import sys, time; from pathlib import Path; from wavelift.sources.qemu import *;"
        f"p = QemuGuest(Path({str(machine.monitor)!r}), Path({str(machine.folder / 'scratch')!r}))"
        f".open([('a', Since({base!r}))]); print('open', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None and killed.stdout.readline() == b"open\n"
        with pytest.raises(MonitorBusy) as busy:
            disk.open(base)
        assert busy.value.code == "monitor_busy" and str(machine.monitor) in busy.value.message
        killed.kill()
    machine.io("a", "write -P 2 2M 64k")
    assert machine.left()
    disk.guest.recover()
    assert machine.left() == [] and machine.qmp.execute("query-block-exports") == []
    content = machine.content("a")
    again = disk.open(base)
    assert dirty(again) == [(1024, 64, False), (2048, 64, False)] and read(again) == content
    again.close()


@pytest.mark.parametrize("name", ["a", "rawb"])
def test_a_restart_of_the_guest_keeps_what_its_format_can_keep(machines: Any, name: str) -> None:
    machine = machines(**{name: 4 * MIB})
    disk = QemuDisk(guest_of(machine), name)
    first = disk.open()
    token = first.token
    first.close()
    machine.io(name, "write -P 1 1M 64k")
    machine.stop()
    with pytest.raises(GuestGone):
        disk.open(token)
    machine.start()
    second = disk.open(token)
    if name == "a":
        assert dirty(second) == [(1024, 64, False)] and second.notes == []
    else:
        assert not second.tracked and "bitmap is gone" in second.notes[0] and "scan" in second.notes[0]
    token = second.token
    second.close()
    machine.stop(kill=True)
    machine.start()
    content = machine.content(name)
    third = disk.open(token)
    assert not third.tracked and len(third.notes) == 1 and read(third) == content
    # A bitmap begins again, so the one after is quick once more.
    token = third.token
    third.close()
    fourth = disk.open(token)
    assert fourth.tracked and dirty(fourth) == []
    fourth.close()


def test_a_bitmap_removed_or_disabled_or_a_disk_resized_means_a_scan(machines: Any) -> None:
    machine = machines(a=4 * MIB)
    disk = QemuDisk(guest_of(machine), "a")

    def begin() -> tuple[str, str]:
        opened = disk.open()
        token = opened.token
        opened.close()
        return token, token.split(":")[1]

    def note(token: str) -> str:
        opened = disk.open(token)
        try:
            assert not opened.tracked and all(extent.dirty for extent in opened.extents())
            return opened.notes[0]
        finally:
            opened.close()

    token, bitmap = begin()
    machine.qmp.execute("block-dirty-bitmap-remove", {"node": "node-a", "name": bitmap})
    assert "gone" in note(token)
    token, bitmap = begin()
    machine.qmp.execute("block-dirty-bitmap-disable", {"node": "node-a", "name": bitmap})
    assert "changed by somebody" in note(token)
    token, bitmap = begin()
    machine.qmp.execute("block_resize", {"node-name": "node-a", "size": 6 * MIB})
    assert "resized" in note(token) and str(6 * MIB) in note(begin()[0] + "0")
    assert "another kind" in note("123:456")


def test_a_full_scratch_file_costs_the_cycle_and_not_the_guest(machines: Any, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a small file system takes root")
    machine = machines(a=256 * MIB)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", scratch], check=True)
    try:
        machine.io("a", "write -P 1 0 200M")
        opened = QemuDisk(guest_of(machine), "a").open()
        for piece in range(58):
            machine.io("a", f"write -P 2 {piece}M 1M")
        deadline = time.monotonic() + 20
        while machine.left():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for use in (lambda: opened.token, lambda: opened.readinto(0, memoryview(bytearray(512)))):
            with pytest.raises(SourceError, match="scratch") as lost:
                use()
            assert lost.value.code == "moment_lost"
        opened.close()
        machine.io("a", "write -P 3 0 200M")
        assert machine.qmp.execute("query-status")["status"] == "running"
    finally:
        subprocess.run(["umount", scratch], check=True)


def test_what_stands_in_the_way_is_named_and_left_alone(machines: Any) -> None:
    machine = machines(a=4 * MIB)
    disk = QemuDisk(guest_of(machine), "a")
    with pytest.raises(SourceError, match="node-a") as unknown:
        QemuDisk(disk.guest, "nope").open()
    assert unknown.value.code == "disk_not_found"
    served = machine.folder / "theirs"
    machine.qmp.execute("nbd-server-start", {"addr": {"type": "unix", "data": {"path": str(served)}}})
    machine.qmp.execute("block-export-add", {"type": "nbd", "id": "theirs", "node-name": "node-a"})
    with pytest.raises(SourceError) as taken:
        disk.open()
    assert taken.value.code == "nbd_server_busy" and machine.left() == [] and machine.bitmaps("a") == []
    assert [export["id"] for export in machine.qmp.execute("query-block-exports")] == ["theirs"]
    machine.qmp.execute("nbd-server-stop")
    opened = disk.open()
    with pytest.raises(MonitorBusy, match="Another job"):
        disk.open()
    assert disk.describe() == (4 * MIB, Consistency.CRASH) and disk.sector_size() == 512
    opened.close()
    assert disk.describe() == (4 * MIB, Consistency.CRASH)


def test_what_was_written_since_an_attempt_that_was_cut_short_is_told_beside_what_changed(machines: Any) -> None:
    machine = machines(a=4 * MIB)
    guest = guest_of(machine)

    def opened(**since: str) -> tuple[str, list[Any], list[Any] | None]:
        """(token, what changed since the base, what was written since the attempt) in KiB."""
        point = guest.open([("a", Since(**since, migration="m"))])[0]
        written = point.written()
        found = None if written is None else [(e.start // KIB, e.length // KIB) for e in written if e.dirty]
        told = point.token, dirty(point), found
        point.close()
        return told

    base, _, nothing = opened()
    assert nothing is None
    machine.io("a", "write -P 1 0 64k")
    cut, _, _ = opened(base=base)
    machine.io("a", "write -P 2 1M 64k")
    again, changed, written = opened(base=base, begun=cut)
    assert (changed, written) == ([(0, 64, False), (1024, 64, False)], [(1024, 64)])
    machine.io("a", "write -P 3 2M 64k")
    # Killed before it wrote down that it began: the track of the attempt before is still there, its own is not.
    assert opened(base=base, begun=cut)[2] == [(1024, 64), (2048, 64)]
    assert opened(base=base, begun=again)[1:] == ([(0, 64, False), (1024, 64, False), (2048, 64, False)], None)


def test_a_guest_that_would_not_outlive_a_reader_is_left_alone(machines: Any) -> None:
    machine = machines(a=4 * MIB)
    disk = QemuDisk(guest_of(machine), "a")
    machine.qmp.execute("object-add", {"qom-type": "iothread", "id": "thread"})
    if machine.qmp.execute("query-version")["qemu"]["major"] >= 9:
        disk.open().close()
        assert machine.qmp.execute("query-status")["status"] == "running"
        return
    for use in (disk.open, disk.describe):
        with pytest.raises(SourceError, match="iothreads") as refused:
            use()
        assert refused.value.code == "guest_at_risk" and "in the guest" in refused.value.remedy
    assert machine.left() == [] and machine.bitmaps("a") == []


def test_sectors_are_those_that_the_guest_sees(machines: Any) -> None:
    machine = machines(a=4 * MIB, raw4k=4 * MIB)
    guest = guest_of(machine)
    assert [QemuDisk(guest, name).sector_size() for name in ("a", "node-raw4k")] == [512, 4096]
