"""The volume with reflinks: made, taken over, given back; and what happens where it cannot be had."""

import errno
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wavelift.localcloud import engine, volume
from wavelift.localcloud.disks import DiskFiles
from wavelift.localcloud.entities import Disk
from wavelift.localcloud.errors import ApiError
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.model.context import Options
from wavelift.localcloud.model.disks import DiskOrder
from wavelift.localcloud.model.snapshots import SnapshotOrder
from wavelift.localcloud.states import DiskStatus
from wavelift.localcloud.store import Token
from wavelift.localcloud.volume import FOLDERS, Volume, VolumeLost, shares

MIB = 1024**2
NOBODY = 65534

root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def traces(folder: Path) -> list[str]:
    """Mounts in the folder and loop devices on its files."""
    mounts = [line.split()[4].replace(r"\040", " ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    found = [mount for mount in mounts if str(folder) in mount]
    for shown in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found += [text for text in [shown.read_text()] if str(folder) in text]
        except OSError:  # it ended just now
            continue
    return found


def wait_for(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """On a file system without reflinks, whatever the host's is. Nothing stays mounted."""
    folder = tmp_path / "a state, folder"
    folder.mkdir()
    if os.geteuid() == 0 and shares(folder):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4G", "none", str(folder)], check=True)
    yield folder
    Volume(folder).close()
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)
    wait_for(lambda: traces(folder) == [])


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB without reflinks."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16M", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def used(folder: Path) -> int:
    free = os.statvfs(folder)
    return (free.f_blocks - free.f_bfree) * free.f_frsize


@root
def test_copies_share_what_is_the_same(state: Path) -> None:
    own = Volume(state)
    own.open()
    files = DiskFiles(state)
    disk, snapshot = files.disk("d-1"), files.snapshot("s-1")
    disk.write_bytes(os.urandom(8 * MIB))
    files.flush(disk)
    before = used(own.folder)
    files.create(snapshot, 8 * MIB, disk)
    content = snapshot.read_bytes()
    assert used(own.folder) - before < MIB
    with disk.open("r+b") as file:
        file.write(b"later")
    assert snapshot.read_bytes() == content and disk.read_bytes()[5:] == content[5:]
    own.close()
    assert not (state / "disks").exists()
    own.open()
    assert snapshot.read_bytes() == content
    own.close()


@root
def test_what_a_killed_cloud_left_mounted_is_taken_over(state: Path) -> None:
    code = (
        "import os, sys, pathlib; from wavelift.localcloud.volume import Volume;"
        "state = pathlib.Path(sys.argv[1]); Volume(state).open();"
        "(state / 'disks' / 'd').write_text('kept'); os.kill(os.getpid(), 9)"
    )
    for _ in range(2):
        killed = subprocess.run([sys.executable, "-c", code, str(state)], timeout=30)
        assert killed.returncode == -9
        assert len(traces(state)) == 2  # one mount, one device
    Volume(state).open()
    assert len(traces(state)) == 2 and (state / "disks" / "d").read_text() == "kept"


@root
def test_a_volume_in_use_is_never_mounted_from_two_devices(
    state: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(volume, "BUSY_SECONDS", 0.0)
    own = Volume(state)
    own.open()
    with (state / "disks" / "d").open("w") as held:
        own.close()
        assert "in use by another process" in caplog.text
        assert not own.folder.is_mount() and len(traces(state)) == 1
        held.write("written after it was gone from the tree")
        held.flush()
        own.open()
        assert (state / "disks" / "d").read_text() == "written after it was gone from the tree"
        assert len(traces(state)) == 2
    own.close()


@root
def test_a_kill_while_it_is_made(state: Path) -> None:
    (state / "volume.partial").write_bytes(b"half")
    Volume(state).open()
    assert shares(state / "disks") and not (state / "volume.partial").exists()


def copies(caplog: pytest.LogCaptureFixture, state: Path) -> None:
    """It works, as on any file system, and says what that costs."""
    assert "SNAPSHOTS WILL COPY" in caplog.text and str(state) in caplog.text
    assert [(state / name).is_dir() and not (state / name).is_symlink() for name in FOLDERS] == [True] * len(FOLDERS)
    assert not (state / "volume.img").exists() and not (state / "volume").exists()
    assert traces(state) == ([str(state)] if state.is_mount() else [])


@root
def test_no_room_for_one(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    Volume(small).open()
    copies(caplog, small)


@root
def test_no_tool_to_make_one(state: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    Volume(state).open()
    copies(caplog, state)
    caplog.clear()
    monkeypatch.undo()
    Volume(state).open()  # its files are in the old place by now
    copies(caplog, state)


@root
def test_one_that_was_made_but_never_used_can_be_given_up(state: Path, caplog: pytest.LogCaptureFixture) -> None:
    (state / "volume.img").write_bytes(b"no file system")
    Volume(state).open()
    copies(caplog, state)


@root
@pytest.mark.parametrize("harm", [lambda image: image.unlink(), lambda image: image.write_bytes(bytes(MIB))])
def test_disks_in_a_lost_volume_are_not_replaced_by_nothing(state: Path, harm: object) -> None:
    own = Volume(state)
    own.open()
    own.close()
    assert callable(harm)
    harm(state / "volume.img")
    before = sorted(state.iterdir())
    with pytest.raises(VolumeLost, match=r"holds this cloud's disks and cannot be mounted"):
        own.open()
    assert [path for path in sorted(state.iterdir()) if path.name != "volume"] == [
        path for path in before if path.name != "volume"
    ]


@root
def test_a_cloud_that_cannot_begin_leaves_nothing_open(state: Path) -> None:
    state.chmod(0o700)
    before = traces(state)
    (state / "instances").write_text("in the way")
    with pytest.raises(FileExistsError):
        Cloud(state, Options())
    wait_for(lambda: traces(state) == before)
    (state / "instances").unlink()
    Cloud(state, Options()).stop()


@root
def test_something_else_is_mounted_there(state: Path) -> None:
    Volume(state).open()
    Volume(state).close()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(state / "volume")], check=True)
    try:
        with pytest.raises(VolumeLost, match="none is mounted there"):
            Volume(state).open()
    finally:
        subprocess.run(["umount", str(state / "volume")], check=True)


def test_an_ordinary_user_copies() -> None:
    code = (
        "import logging, sys, pathlib; from wavelift.localcloud.volume import Volume; logging.basicConfig();"
        "state = pathlib.Path(sys.argv[1]); Volume(state).open(); Volume(state).close()"
    )
    user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        state = Path(name).resolve()
        if shares(state):
            pytest.skip("every file system here shares data")
        os.chown(state, NOBODY, NOBODY) if user else None
        done = subprocess.run(  # type: ignore[call-overload]
            [sys.executable, "-c", code, name], capture_output=True, text=True, timeout=30, **user
        )
        assert done.returncode == 0, done.stderr
        assert "SNAPSHOTS WILL COPY" in done.stderr and "as root" in done.stderr
        assert sorted(path.name for path in state.iterdir()) == sorted(FOLDERS)


@root
def test_a_full_disk_gets_its_room_back(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    Volume(small).open()
    files = DiskFiles(small)
    files.disk("d-1").write_bytes(os.urandom(10 * MIB))
    before = used(small)
    with pytest.raises(OSError) as caught:
        files.create(files.snapshot("s-1"), 10 * MIB, files.disk("d-1"))
    assert caught.value.errno == errno.ENOSPC
    assert used(small) == before and list((small / "snapshots").iterdir()) == []


@root
def test_a_snapshot_that_finds_the_disk_full_was_never_begun(small: Path) -> None:
    cloud = Cloud(small, Options())
    cloud.start()
    try:
        disk = Disk(id="d-full", created=1.0, zone="cn-local-a", size=1, category="cloud_essd", ever_attached=True)
        disk.become(DiskStatus.AVAILABLE)
        with cloud.store.transaction() as tx:
            tx.put(disk)
        cloud.files.create(cloud.files.disk(disk.id), 1024**3)
        with cloud.files.disk(disk.id).open("r+b") as file:
            file.write(os.urandom(9 * MIB))
        token = Token("CreateSnapshot", "t", "same", ApiError("Mismatch", ""))
        with pytest.raises(ApiError, match="No space left on device") as caught:
            cloud.snapshots.create(disk.id, SnapshotOrder(), token)
        assert caught.value.status == 500
        assert cloud.snapshots.all() == [] and list((small / "snapshots").iterdir()) == []
        with cloud.files.disk(disk.id).open("r+b") as file:  # somebody makes room
            file.truncate(MIB)
            file.truncate(1024**3)
        made = cloud.snapshots.create(disk.id, SnapshotOrder(), token)
        assert cloud.snapshots.create(disk.id, SnapshotOrder(), token) == made
        assert [path.name for path in (small / "snapshots").iterdir()] == [f"{made}.raw"]
    finally:
        cloud.stop()


def fill(folder: Path) -> Path:
    """To the last byte."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC
    return filler


@root
def test_a_state_that_could_not_be_written_down_ends_when_there_is_room(
    small: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine, "RETRY_SECONDS", 0.05)
    cloud = Cloud(small, Options())
    cloud.start()
    try:
        with cloud.engine.hold_clock():
            order = DiskOrder(zone="cn-local-a", category="cloud_essd", level="PL0", size=1)
            made = cloud.disks.create(order, None)
            wait_for(cloud.files.disk(made).exists)
            filler = fill(small)
        wait_for(lambda: "a state could not be ended" in caplog.text)
        filler.unlink()
        wait_for(lambda: [disk.status for disk in cloud.disks.all()] == [DiskStatus.AVAILABLE])
    finally:
        cloud.stop()
