"""A bit that flips while the source is read: found by a second read before the moment is closed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from wavelift.agent.replication import Order, Target, replicate
from wavelift.agent.reread import SourceUnstable
from wavelift.blocks.sink_local import LocalSink
from wavelift.sources.base import Consistency, Extent
from wavelift.sources.image import ImagePointInTime, ImageSource

from .conftest import MIB, noise, same

BLOCK = 64 * 1024
SIZE = 4 * MIB


class Flipping:
    """A disk whose block number 5 comes with one bit flipped the first time it is read, as from a bad cable."""

    kind = "image"

    def __init__(self, path: Path, consistency: Consistency) -> None:
        self.path = path
        self.consistency = consistency
        self.flips = 1

    def open(self, token: str | None = None) -> FlippingMoment:
        return FlippingMoment(self, ImageSource(self.path).open(token))


class FlippingMoment:
    def __init__(self, source: Flipping, image: ImagePointInTime) -> None:
        self._source = source
        self._image = image
        self.size, self.token, self.consistency = image.size, image.token, source.consistency

    def extents(self) -> Iterator[Extent]:
        return self._image.extents()

    def readinto(self, offset: int, view: memoryview) -> None:
        self._image.readinto(offset, view)
        at = 5 * BLOCK + 100 - offset
        if self._source.flips and 0 <= at < len(view):
            self._source.flips -= 1
            view[at] ^= 8

    def close(self) -> None:
        self._image.close()


class Watch:
    def step(self, name: str) -> None: ...

    def check(self) -> None: ...

    def progress(self, **figures: int) -> None: ...


@pytest.mark.parametrize("consistency", [Consistency.OFFLINE, Consistency.MOVING])
def test_a_bit_that_flips_while_it_is_read_is_found_and_named(tmp_path: Path, consistency: Consistency) -> None:
    image, volume = tmp_path / "image", tmp_path / "volume"
    image.write_bytes(noise(2 * MIB) + bytes(2 * MIB))
    volume.write_bytes(bytes(SIZE))
    source = Flipping(image, consistency)
    order = Order("web", 1, None, [Target("sda", source, "d-v1", lambda: LocalSink(volume))], workers=1)
    if consistency is Consistency.MOVING:
        # Of a disk that is written to meanwhile, a second read says nothing.
        replicate(tmp_path / "state", order, Watch())
        return
    with pytest.raises(SourceUnstable) as caught:
        replicate(tmp_path / "state", order, Watch())
    assert (caught.value.disk, caught.value.offset) == ("sda", 5 * BLOCK) and not same(image, volume)
    # Nothing of that attempt is believed: the next one sends all of it.
    result = replicate(tmp_path / "state", order, Watch())
    assert result["disks"][0]["sent_bytes"] == 2 * MIB and same(image, volume)
