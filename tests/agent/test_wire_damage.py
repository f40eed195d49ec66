"""A bit that flips on the way: the pack is refused, sent once more, and the volume is right."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from wavelift.agent.replication import Order, Target, replicate
from wavelift.blocks.descriptor import SinkDescriptor
from wavelift.blocks.sink import open_sink
from wavelift.service import tokens
from wavelift.sources.image import ImageSource

from .conftest import KEY, MIB, MIGRATION, Service, noise, same
from .test_reread import Watch

PACK = 2 * MIB
RELAY = "127.0.0.2"


class Flip:
    """Relays of 127.0.0.2 to the same ports of 127.0.0.1. Of all that goes up, the byte number `at` comes with one bit
    flipped."""

    def __init__(self, at: int) -> None:
        self.sent = 0
        self._at = at
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []

    def relay(self, port: int, *, flipping: bool) -> None:
        listening = socket.create_server((RELAY, port))
        self._sockets.append(listening)
        threading.Thread(target=self._accept, args=(listening, port, flipping), daemon=True).start()

    def close(self) -> None:
        for each in self._sockets:
            each.close()

    def _accept(self, listening: socket.socket, port: int, flipping: bool) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", port))
            self._sockets += [client, server]
            for source, target, up in ((client, server, flipping), (server, client, False)):
                threading.Thread(target=self._pump, args=(source, target, up), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, up: bool) -> None:
        try:
            while piece := bytearray(source.recv(65536)):
                if up:
                    with self._lock:
                        at, self.sent = self._at - self.sent, self.sent + len(piece)
                    if 0 <= at < len(piece):
                        piece[at] ^= 1
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            # The other side is gone, and its sockets are closed by whoever closes this.
            return


@pytest.fixture
def flip() -> Iterator[Flip]:
    # In the middle of a pack.
    flip = Flip(11 * MIB // 2)
    yield flip
    flip.close()


@pytest.mark.parametrize("tls", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_pack_that_is_damaged_on_its_way_is_sent_once_more(tmp_path: Path, flip: Flip, tls: bool) -> None:
    image, volume, devices = tmp_path / "image", tmp_path / "volume", tmp_path / "devices"
    image.write_bytes(noise(16 * MIB))
    volume.write_bytes(bytes(16 * MIB))
    devices.mkdir()
    (devices / "virtio-v1").symlink_to(volume)
    (tmp_path / "key").write_text(KEY)
    arguments = ["--state", str(tmp_path / "gw"), "--devices", str(devices), "--key-file", str(tmp_path / "key")]
    gateway = Service("gateway", tmp_path, *arguments, *([] if tls else ["--plaintext"]))
    try:
        with gateway.client("") as client:
            port = int(client.health()["data_port"])
        flip.relay(int(gateway.url.rpartition(":")[2]), flipping=False)
        flip.relay(port, flipping=True)
        sink = SinkDescriptor(
            url=gateway.url.replace("127.0.0.1", RELAY),
            fingerprint=gateway.fingerprint,
            volume="d-v1",
            generation=1,
            token=tokens.issue(KEY, migration=MIGRATION, scope="write", volumes=["d-v1"], lifetime=60),
        )
        target = Target("sda", ImageSource(image), "d-v1", lambda: open_sink(sink), PACK)
        order = Order(MIGRATION, 1, None, [target], workers=1)
        (disk,) = replicate(tmp_path / "state", order, Watch())["disks"]
        assert same(image, volume)
        with gateway.client("") as client:
            packs = int(client.health()["packs_received"])
        # Each was made durable once. Under TLS the connection ends at the flipped byte; without it, the receiver reads
        # the pack to its end.
        again = flip.sent - disk["wire_bytes"]
        assert 0.3 < again / (disk["wire_bytes"] / packs) < 1.1, (again, disk["wire_bytes"], packs)
    finally:
        gateway.stop()
