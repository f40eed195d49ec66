"""A file copied at the source: its blocks are copied at the target, through a real agent and gateway."""

from __future__ import annotations

from .conftest import MIB, Stack, noise, same

SIZE = 64 * MIB
FILE = 6 * MIB
FIRST, SECOND = 2 * MIB, 40 * MIB


def test_a_copied_file_travels_as_digests_and_what_is_gone_as_data(stack: Stack) -> None:
    disk = stack.disk("sda", SIZE, {FIRST: noise(FILE), 20 * MIB: noise(MIB, 1)})
    volume = stack.volume("v1", SIZE)
    stack.start()
    stack.replicate(1, sda="d-v1")
    stack.commit(1)
    with disk.open("r+b") as file:
        file.seek(SECOND)
        file.write(noise(FILE))
    (found,) = stack.replicate(2, 1, sda="d-v1")["disks"]
    assert found["changed_bytes"] == found["moved_bytes"] == FILE and found["sent_bytes"] == 0
    assert 0 < found["wire_bytes"] < FILE // 500
    assert same(disk, volume)
    assert stack.verify(2, sda="d-v1")["disks"][0]["root"] == found["root"]
    stack.commit(2)

    # The volume loses two blocks of the first and of the second, which nobody but the gateway can know.
    with volume.open("r+b") as file:
        for at in (FIRST, SECOND):
            file.seek(at + 2 * MIB)
            file.write(b"lost" * (MIB // 32))
    with disk.open("r+b") as file:
        file.seek(52 * MIB)
        file.write(noise(FILE))
    (found,) = stack.replicate(3, 2, sda="d-v1")["disks"]
    assert found["moved_bytes"] + found["sent_bytes"] == found["changed_bytes"] == FILE
    assert MIB <= found["sent_bytes"] <= 2 * MIB
    content = volume.read_bytes()
    assert content[52 * MIB : 52 * MIB + FILE] == noise(FILE)
