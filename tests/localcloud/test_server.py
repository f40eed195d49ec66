"""The end of a cloud while clients are in the middle of something."""

import os
from pathlib import Path

from tests.localcloud.conftest import KEY, SECRET
from tests.localcloud.oss.test_service import Connection
from tests.localcloud.test_volume import traces, wait_for
from wavelift.localcloud.model.context import Options
from wavelift.localcloud.server import LocalCloud
from wavelift.localcloud.volume import Volume

MIB = 1 << 20


def blobs(state: Path) -> list[Path]:
    return [path for path in (state / "oss" / "data").glob("??/*") if path.is_file()]


def open_files(folder: Path) -> list[str]:
    shown = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return [str(path) for path in shown if path.is_relative_to(folder)]


def test_transfers_that_stand_still_hold_nothing(tmp_path: Path) -> None:
    with LocalCloud(tmp_path, {KEY: SECRET}, Options()) as cloud:
        host, _, port = cloud.oss_endpoint.partition(":")
        setup, up, down = (Connection(host, int(port), timeout=20) for _ in range(3))
        for target, body in (("/here/", b""), ("/here/a", os.urandom(32 * MIB))):
            answer = setup.send_signed("PUT", target, body, Content_Length=str(len(body)))
            assert (answer.status, answer.read()) == (200, b"")
        kept = blobs(tmp_path)
        up.begin("PUT", "/here/b", Content_Length=str(10 * MIB))
        up.endheaders()
        up.send(os.urandom(3 * MIB))
        reading = down.send_signed("GET", "/here/a")
        assert len(reading.read(1000)) == 1000
        setup.send_signed("DELETE", "/here/a").read()
        wait_for(lambda: len(blobs(tmp_path)) == len(kept) + 1)
    for connection in (setup, up, down):
        connection.close()
    assert open_files(tmp_path) == []
    wait_for(lambda: traces(tmp_path) == [])
    volume = Volume(tmp_path)
    volume.open()
    try:
        assert blobs(tmp_path) == []
    finally:
        volume.close()
