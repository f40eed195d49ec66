"""A host that is almost full: a file system of 16 MiB."""

import logging
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from alibabacloud_tea_openapi.exceptions import ServerException

from tests.localcloud.conftest import KEY, SECRET, SLEEP, Ecs
from wavelift.localcloud import room
from wavelift.localcloud.model.context import Options
from wavelift.localcloud.server import LocalCloud

MIB = 1024**2

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16M,mode=700", "none", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def wait_for(text: str, caplog: pytest.LogCaptureFixture) -> None:
    deadline = time.monotonic() + 10
    while text not in caplog.text:
        assert time.monotonic() < deadline, caplog.text
        time.sleep(0.02)


def test_what_takes_room_is_refused_while_there_is_none(
    small: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(room, "MARGIN", 4 * MIB)
    caplog.set_level(logging.WARNING)
    with LocalCloud(small, {KEY: SECRET}, Options(host_instances=True, grace=1.0)) as cloud:
        ecs = Ecs(cloud.endpoint)
        host, disk = ecs.run_host(), ecs.new_disk()
        ecs.attach(disk, host)
        stopped = ecs.run_host()
        ecs.stop(stopped)
        ballast = small / "ballast"
        free = os.statvfs(small)
        ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - 2 * MIB))
        wait_for("THE HOST IS ALMOST FULL", caplog)
        for refused in (
            lambda: ecs.new_disk(),
            lambda: ecs.new_snapshot(disk),
            lambda: ecs.run_host(SLEEP),
            lambda: ecs.call("start_instance", instance_id=stopped),
        ):
            with pytest.raises(ServerException, match=rf"are left on the host's disk at {small}") as caught:
                refused()
            assert (caught.value.code, caught.value.status_code) == ("InternalError", 500)
        ecs.detach(disk, host)
        ecs.call("delete_disk", disk_id=disk)
        ballast.unlink()
        wait_for("There is room again", caplog)
        ecs.new_disk()
    assert caplog.text.count("THE HOST IS ALMOST FULL") == 1
