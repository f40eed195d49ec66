"""The backup GPT moves to the end of a larger disk: as other tools make tables, and as they judge them afterwards."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavelift.guest.errors import UnsupportedGuest
from wavelift.guest.volumes.gpt import needed_repair, planned_repair, repair

MIB = 1024 * 1024
SFDISK = "/usr/sbin/sfdisk"
LAYOUT = "label: gpt\nstart=2048, size=2048, type=uefi, name=esp\nstart=4096, size=4096, type=linux, name=root\n"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    made(path, 8 * MIB)
    return path


def made(path: Path, size: int, sector: int = 512) -> None:
    with path.open("wb") as image:
        image.truncate(size)
    if sector == 512:
        subprocess.run([SFDISK, "--quiet", str(path)], input=LAYOUT, text=True, check=True)
    else:
        fdisk(path, sector, "g\nn\n1\n256\n511\nn\n2\n512\n1023\nw\n")


def fdisk(path: Path, sector: int, commands: str) -> str:
    command = ["/usr/sbin/fdisk", "-b", str(sector), str(path)]
    done = subprocess.run(command, input=commands, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def grown(path: Path, size: int) -> None:
    with path.open("r+b") as image:
        image.truncate(size)


def verified(path: Path, sector: int = 512) -> None:
    said = fdisk(path, sector, "v\nq\n")
    assert "No errors detected" in said, said
    assert not any(word in said for word in ("corrupt", "PMBR", "not on the end")), said


def partitions(path: Path, sector: int = 512) -> list[str]:
    said = fdisk(path, sector, "x\np\nq\n")
    found = [line for line in said.splitlines() if str(path) in line and "sectors" not in line]
    assert len(found) == 2, said
    return found + [line for line in said.splitlines() if "identifier" in line]


def overwritten(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as image:
        image.seek(offset)
        image.write(content)


def test_an_untouched_disk_needs_nothing(disk: Path) -> None:
    before = disk.read_bytes()
    assert needed_repair(disk) is None
    assert repair(disk) is None
    assert disk.read_bytes() == before


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("more", [4096, 4 * 4096, 5 * 4096, MIB, 100 * MIB])
def test_the_backup_moves_to_the_end(tmp_path: Path, sector: int, more: int) -> None:
    disk = tmp_path / "disk.img"
    made(disk, 8 * MIB, sector)
    before = partitions(disk, sector)
    body = disk.read_bytes()[34 * sector : 7 * MIB]
    grown(disk, 8 * MIB + more)
    done = repair(disk)
    assert done is not None and any("disk's end" in reason for reason in done.reasons)
    verified(disk, sector)
    assert partitions(disk, sector) == before
    assert disk.read_bytes()[34 * sector : 7 * MIB] == body
    assert needed_repair(disk) is None


def test_only_one_valid_backup_is_left(disk: Path) -> None:
    grown(disk, 20 * MIB)
    repair(disk)
    assert disk.read_bytes().count(b"EFI PART") == 2


@pytest.mark.parametrize("size", [8 * MIB, 20 * MIB])
@pytest.mark.parametrize(("offset", "what"), [(512 + 20, "header"), (512, "signature"), (1024 + 40, "entries")])
def test_a_damaged_primary_is_made_from_the_backup(disk: Path, size: int, offset: int, what: str) -> None:
    before = partitions(disk)
    overwritten(disk, offset, b"\xa5" * 16)
    grown(disk, size)
    done = repair(disk)
    assert done is not None and "primary" in done.reasons[0], what
    verified(disk)
    assert partitions(disk) == before


def test_a_lost_primary_is_found_by_the_protective_mbr(disk: Path) -> None:
    before = partitions(disk)
    overwritten(disk, 512, bytes(33 * 512))
    grown(disk, 32 * MIB)
    assert repair(disk) is not None
    verified(disk)
    assert partitions(disk) == before


def test_a_lost_backup_is_made_again(disk: Path) -> None:
    overwritten(disk, 8 * MIB - 512, bytes(512))
    done = repair(disk)
    assert done is not None and "missing or damaged" in done.reasons[0]
    verified(disk)


def test_both_damaged(disk: Path) -> None:
    overwritten(disk, 512 + 20, b"\xa5" * 16)
    overwritten(disk, 8 * MIB - 512 + 20, b"\xa5" * 16)
    before = disk.read_bytes()
    with pytest.raises(UnsupportedGuest, match="both its primary and its backup"):
        repair(disk)
    assert disk.read_bytes() == before


def test_a_disk_that_lost_its_end(disk: Path) -> None:
    grown(disk, 4 * MIB)
    with pytest.raises(UnsupportedGuest, match="partition 2 ends at sector 8191"):
        repair(disk)


def test_a_smaller_disk_that_holds_all_partitions(disk: Path) -> None:
    grown(disk, 6 * MIB)
    assert repair(disk) is not None
    verified(disk)


def test_mbr_disks_are_left_alone(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    made(disk, 8 * MIB)
    mbr = "label: dos\nstart=2048, size=2048\n"
    subprocess.run([SFDISK, "--quiet", str(disk)], input=mbr, text=True, check=True)
    made_gpt = tmp_path / "other.img"
    made(made_gpt, 8 * MIB)
    # Left over from an earlier life.
    overwritten(disk, 512, made_gpt.read_bytes()[512 : 34 * 512])
    grown(disk, 20 * MIB)
    assert repair(disk) is None
    assert planned_repair(lambda offset, length: b"", 0) is None


def test_a_hybrid_mbr_keeps_its_entries(disk: Path) -> None:
    overwritten(disk, 446 + 16, disk.read_bytes()[446:462][:4] + b"\x83" + b"\0" * 11)
    mbr = disk.read_bytes()[:512]
    grown(disk, 20 * MIB)
    repair(disk)
    assert disk.read_bytes()[:512] == mbr


@pytest.mark.parametrize("damaged", [False, True], ids=["primary good", "primary damaged"])
@pytest.mark.parametrize("more", [20 * 512, 4 * MIB])
def test_cut_short_after_any_write_it_ends_the_same(disk: Path, damaged: bool, more: int) -> None:
    """Also when the last write came through only in part."""
    if damaged:
        overwritten(disk, 512 + 20, b"\xa5" * 16)
    grown(disk, 8 * MIB + more)
    before = disk.read_bytes()
    done = repair(disk)
    assert done is not None and len(done.writes) >= 4
    wanted = partitions(disk)
    for count in range(len(done.writes)):
        for part in (0, 1):
            disk.write_bytes(before)
            for write in done.writes[:count]:
                overwritten(disk, write.offset, write.content)
            torn = done.writes[count]
            # A sector is written as a whole or not at all.
            length = len(torn.content) // 512 * part // 2 * 512
            overwritten(disk, torn.offset, torn.content[:length])
            repair(disk)
            verified(disk)
            assert partitions(disk) == wanted


TEMPLATE: dict[str, bytes] = {}


@pytest.fixture(autouse=True, scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("gpt") / "disk.img"
    made(path, 8 * MIB)
    TEMPLATE["disk"] = path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(
    sectors=st.integers(0, 40000),
    noise=st.lists(st.tuples(st.integers(0, 34 * 512 - 1), st.integers(0, 255)), max_size=3),
)
def test_any_size_and_any_damage_ends_in_order_or_is_refused(sectors: int, noise: list[tuple[int, int]]) -> None:
    content = bytearray(TEMPLATE["disk"])
    for offset, value in noise:
        content[offset] = value
    content += bytes(sectors * 512)

    def read(offset: int, length: int) -> bytes:
        return bytes(content[offset : offset + length])

    try:
        planned = planned_repair(read, len(content))
    except UnsupportedGuest:
        return
    for write in planned.writes if planned else ():
        assert write.offset + len(write.content) <= len(content)
        content[write.offset : write.offset + len(write.content)] = write.content
    assert planned_repair(read, len(content)) is None
