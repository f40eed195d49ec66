"""Images from and to buckets, with files that qemu-img made and files that somebody tampered with."""

import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alibabacloud_ecs20140526 import models

from wavelift.localcloud.oss.model.values import Meta
from wavelift.localcloud.server import LocalCloud

MIB, GIB = 1024**2, 1024**3
BUCKET = "images"
Upload = Callable[[str, Path], str]


@pytest.fixture(scope="module")
def upload(server: LocalCloud) -> Upload:
    server.cloud.objects.buckets.put(BUCKET, None, "Standard")

    def put(key: str, path: Path) -> str:
        server.cloud.objects.put_file(BUCKET, key, path)
        return key

    return put


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 MiB with something at its start and end."""
    path = tmp_path_factory.mktemp("files") / "disk.raw"
    path.write_bytes(b"first" + bytes(3 * MIB - 9) + b"last")
    return path


def converted(raw: Path, kind: str, *options: str) -> Path:
    path = raw.with_suffix(f".{kind}")
    subprocess.run(["qemu-img", "convert", "-O", kind, *options, "-f", "raw", raw, path], check=True)
    return path


def source(key: str, **fields: Any) -> Any:
    return models.ImportImageRequestDiskDeviceMapping(**{"ossbucket": BUCKET, "ossobject": key, **fields})


def order(ecs: Any, *sources: Any, **fields: Any) -> tuple[str, str]:
    answer = ecs.call("import_image", disk_device_mapping=list(sources), **fields)
    return answer["ImageId"], answer["TaskId"]


def imported(ecs: Any, *sources: Any, **fields: Any) -> dict[str, Any]:
    image_id, _ = order(ecs, *sources, **fields)
    image: dict[str, Any] = ecs.wait(ecs.image, image_id, "Available")
    return image


def task(ecs: Any, task_id: str) -> dict[str, Any]:
    answer: dict[str, Any] = ecs.call("describe_task_attribute", task_id=task_id)
    return {**answer, "Status": answer["TaskStatus"]}


def snapshot_file(state: Path, image: dict[str, Any], index: int = 0) -> Path:
    identifier = image["DiskDeviceMappings"]["DiskDeviceMapping"][index]["SnapshotId"]
    return state / "snapshots" / f"{identifier}.raw"


def check_content(path: Path, size: int = GIB) -> None:
    with path.open("rb") as file:
        assert file.read(5) == b"first"
        file.seek(3 * MIB - 4)
        assert file.read(5) == b"last\0"
    assert path.stat().st_size == size and path.stat().st_blocks * 512 <= 4 * MIB


@pytest.mark.parametrize("stated", [None, "raw"])
def test_a_raw_file(ecs: Any, state: Path, upload: Upload, raw: Path, stated: str | None) -> None:
    said = {"boot_mode": "UEFI", "platform": "Debian", "tags": {"wave": "1"}, "image_name": f"raw-{stated}"}
    image = imported(ecs, source(upload("disk.raw", raw), format=stated), **said)
    assert (image["BootMode"], image["Platform"], image["Size"]) == ("UEFI", "Debian", 1)
    device = image["DiskDeviceMappings"]["DiskDeviceMapping"][0]
    assert (device["Device"], device["Type"], device["ImportOSSObject"]) == ("/dev/xvda", "system", "disk.raw")
    check_content(snapshot_file(state, image))
    snapshot = ecs.snapshot(device["SnapshotId"])
    assert (snapshot["Status"], snapshot["Usage"], snapshot["SourceDiskType"]) == ("accomplished", "image", "system")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("qcow2", []),
        ("qcow2", ["-o", "compat=0.10"]),
        ("qcow2", ["-c", "-o", "compression_type=zstd"]),
        ("vpc", ["-o", "subformat=dynamic"]),
        ("vpc", ["-o", "subformat=fixed"]),
    ],
)
def test_other_files(ecs: Any, state: Path, upload: Upload, raw: Path, kind: str, options: list[str]) -> None:
    image = imported(ecs, source(upload("disk.other", converted(raw, kind, *options)), disk_image_size=2))
    assert image["Size"] == 2
    check_content(snapshot_file(state, image), 2 * GIB)


def test_an_object_in_parts(ecs: Any, server: LocalCloud, state: Path, raw: Path) -> None:
    """Its bytes are in several files."""
    objects = server.cloud.objects
    objects.buckets.put(BUCKET, None, "Standard")
    data = raw.read_bytes()
    for kind, content in (("raw", data), ("qcow2", converted(raw, "qcow2").read_bytes())):
        with objects.blobs.writing() as writer:
            writer.write(content[:MIB])
            staged = writer.finish()
        objects.objects.append(BUCKET, f"parts.{kind}", 0, staged, Meta({}))
        with objects.blobs.writing() as writer:
            writer.write(content[MIB:])
            staged = writer.finish()
        objects.objects.append(BUCKET, f"parts.{kind}", min(MIB, len(content)), staged, Meta({}))
        check_content(snapshot_file(state, imported(ecs, source(f"parts.{kind}"))))


def test_a_machine_of_several_disks(ecs: Any, state: Path, upload: Upload, raw: Path) -> None:
    key = upload("disk.raw", raw)
    image = imported(ecs, source(key), source(key, disk_image_size=3))
    devices = image["DiskDeviceMappings"]["DiskDeviceMapping"]
    assert [(d["Device"], d["Type"], d["Size"]) for d in devices] == [
        ("/dev/xvda", "system", "1"),
        ("/dev/xvdb", "data", "3"),
    ]
    check_content(snapshot_file(state, image, 1), 3 * GIB)
    instance = ecs.run(image["ImageId"])
    ecs.wait(ecs.instance, instance, "Running")
    for disk in ecs.call("describe_disks", instance_id=instance)["Disks"]["Disk"]:
        with (state / "disks" / f"{disk['DiskId']}.raw").open("rb") as file:
            assert file.read(5) == b"first"
    ecs.release(instance)


def test_refused_orders(ecs: Any, upload: Upload, raw: Path, tmp_path: Path) -> None:
    key = upload("disk.raw", raw)
    empty = tmp_path / "empty"
    empty.touch()
    for code, where in [
        ("InvalidOSSBucket.NotFound", source(key, ossbucket="nowhere")),
        ("InvalidOSSObject.NotFound", source("nothing")),
        ("InvalidOSSObject.Size", source(upload("empty", empty))),
        ("InvalidImageFormat.Malformed", source(key, format="VMDK")),
        ("InvalidImageSize", source(key, disk_image_size=2049)),
        ("InvalidImageSize", source(key, disk_im_size=0)),
        ("MissingParameter", models.ImportImageRequestDiskDeviceMapping(ossbucket=BUCKET)),
    ]:
        with ecs.refused(code, 400):
            order(ecs, where)
    with ecs.refused("InvalidDataDiskSize", 400):
        order(ecs, source(key), source(key, disk_image_size=2049))
    with ecs.refused("MissingParameter.DiskDeviceMapping", 403):
        order(ecs)
    with ecs.refused("InvalidParameter.Malformed", 403):
        order(ecs, source(key), source(key, device="/dev/xvda"))
    with ecs.refused("InvalidBootMode.Malformed", 400):
        order(ecs, source(key), boot_mode="UEFI-Preferred")
    with ecs.refused("DryRunOperation", 400):
        order(ecs, source(key), dry_run=True)


def test_a_token_makes_one_image(ecs: Any, upload: Upload, raw: Path) -> None:
    made = {order(ecs, source(upload("disk.raw", raw)), client_token="import") for _ in range(2)}
    assert len(made) == 1
    with ecs.refused("IdempotentParameterMismatch", 400):
        order(ecs, source("disk.raw"), client_token="import", description="another")


def patched(path: Path, offset: int, data: bytes) -> Path:
    target = path.with_name(f"patched-{offset}-{len(data)}{path.suffix}")
    target.write_bytes(path.read_bytes())
    with target.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    return target


def hostile(raw: Path, secret: Path) -> Iterator[tuple[str, str, str | None, Path]]:
    plain = converted(raw, "qcow2")
    backed = raw.with_name("backed.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, backed], check=True)
    outside = raw.with_name("outside.qcow2")
    options = f"data_file={raw.with_name('data')},data_file_raw=on"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, outside, "1M"], check=True)
    malformed, size = "InvalidImageFormat.Malformed", "InvalidImageSize"
    yield "backing file", malformed, None, backed
    yield "data file", malformed, None, outside
    yield "encrypted", malformed, None, patched(plain, 32, struct.pack(">I", 1))
    yield "unknown feature", malformed, None, patched(plain, 72, struct.pack(">Q", 1 << 40))
    yield "corrupt", malformed, None, patched(plain, 72, struct.pack(">Q", 2))
    yield "version", malformed, None, patched(plain, 4, struct.pack(">I", 9))
    yield "larger than any disk", size, None, patched(plain, 24, struct.pack(">Q", 1 << 50))
    yield "nothing", size, None, patched(plain, 24, struct.pack(">Q", 0))
    yield "not qcow2", malformed, "QCOW2", raw
    yield "not vhd", malformed, "VHD", raw
    yield "vmdk", malformed, None, converted(raw, "vmdk")
    yield "broken tables", "ImportImageFailed", None, patched(plain, 40, struct.pack(">Q", 1 << 60))
    cut = raw.with_name("cut.qcow2")
    cut.write_bytes(plain.read_bytes()[: 5 * 65536])
    yield "cut short", "ImportImageFailed", None, cut
    fixed = converted(raw, "vpc", "-o", "subformat=fixed")
    yield "parent", malformed, None, patched(fixed, fixed.stat().st_size - 512 + 60, struct.pack(">I", 4))


def test_hostile_files(ecs: Any, state: Path, upload: Upload, raw: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"what nobody may read" * 100)
    before = set((state / "snapshots").iterdir())
    ordered = [
        (name, code, *order(ecs, source(upload(name, path), format=stated)))
        for name, code, stated, path in hostile(raw, secret)
    ]
    for name, code, image_id, task_id in ordered:
        failed = ecs.wait(lambda t: task(ecs, t), task_id, "Failed")
        operation = failed["OperationProgressSet"]["OperationProgress"][0]
        assert (name, operation["ErrorCode"], operation["OperationStatus"]) == (name, code, "Failed")
        assert ecs.image(image_id)["Status"] == "CreateFailed"
        ecs.call("delete_image", image_id=image_id)
    assert set((state / "snapshots").iterdir()) == before


def test_they_wait_for_one_another(ecs: Any, server: LocalCloud, upload: Upload, raw: Path) -> None:
    key = upload("disk.raw", raw)
    with server.cloud.engine.hold_clock():
        made = [order(ecs, source(key))[0] for _ in range(3)]
        assert [ecs.image(image)["Status"] for image in made] == ["Creating", "Creating", "Waiting"]
        with ecs.refused("ImageIsImporting", 403):
            ecs.call("delete_image", image_id=made[2])
    for image in made:
        ecs.wait(ecs.image, image, "Available")


def test_an_import_given_up(ecs: Any, server: LocalCloud, state: Path, upload: Upload, raw: Path) -> None:
    before = set((state / "snapshots").iterdir())
    with server.cloud.engine.hold_clock():
        made = [order(ecs, source(upload("disk.raw", raw))) for _ in range(3)]
        for image_id, task_id in reversed(made):  # the one that waits, and those that are under way
            ecs.call("cancel_task", task_id=task_id)
            assert task(ecs, task_id)["Status"] == "Cancelled"
            assert ecs.image(image_id)["Status"] == "CreateFailed"
            with ecs.refused("InvalidTaskId.IncorrectTaskStatus", 403):
                ecs.call("cancel_task", task_id=task_id)
    deadline = time.monotonic() + 10
    while set((state / "snapshots").iterdir()) != before:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def exported(ecs: Any, upload: Upload, raw: Path) -> str:
    return str(imported(ecs, source(upload("disk.raw", raw)))["ImageId"])


@pytest.fixture(scope="module")
def several(ecs: Any, exported: str) -> str:
    """An image of a system disk and two data disks, one of them empty."""
    snapshot = ecs.image(exported)["DiskDeviceMappings"]["DiskDeviceMapping"][0]["SnapshotId"]
    mapping = models.CreateImageRequestDiskDeviceMapping
    mappings = [
        mapping(snapshot_id=snapshot, disk_type="system"),
        mapping(snapshot_id=snapshot, disk_type="data"),
        mapping(disk_type="data", size=5),
    ]
    image_id: str = ecs.call("create_image", disk_device_mapping=mappings)["ImageId"]
    ecs.wait(ecs.image, image_id, "Available")
    return image_id


def export(ecs: Any, image_id: str, **fields: Any) -> dict[str, list[str]]:
    """What the finished task says of what it made."""
    task_id = ecs.call("export_image", image_id=image_id, ossbucket=BUCKET, **fields)["TaskId"]
    done = ecs.wait(lambda t: task(ecs, t), task_id, "Finished")
    assert (done["TaskProcess"], done["SuccessCount"], done["TaskAction"]) == ("100%", 1, "ExportImage")
    said: dict[str, list[str]] = {}
    for item in done["OperationProgressSet"]["OperationProgress"][0]["RelatedItemSet"]["RelatedItem"]:
        said.setdefault(item["Name"], []).append(item["Value"].replace(task_id, "TASK"))
        if item["Name"] == "OSSObject":
            said.setdefault("keys", []).append(item["Value"])
    return said


@pytest.mark.parametrize("kind", ["raw", "vhd"])
def test_out_and_in_again(ecs: Any, state: Path, exported: str, kind: str) -> None:
    said = export(ecs, exported, image_format=None if kind == "raw" else kind)
    assert said["OSSBucket"] == [BUCKET] and said["ImageFormat"] == [kind]
    assert said["OSSObject"] == [f"{exported}_TASK_system.{kind}"]
    check_content(snapshot_file(state, imported(ecs, source(said["keys"][0]))))


def test_several_disks_out_and_in_again(ecs: Any, state: Path, several: str) -> None:
    said = export(ecs, several, ossprefix="Out1", image_format="qcow2")
    name = f"Out1_{several}_TASK"
    assert said["OSSObject"] == [f"{name}_system.qcow2", f"{name}_data_xvdb.qcow2", f"{name}_data_xvdc.qcow2"]
    image = imported(ecs, *(source(key) for key in said["keys"]))
    check_content(snapshot_file(state, image, 0))
    check_content(snapshot_file(state, image, 1))
    assert snapshot_file(state, image, 2).stat().st_size == 5 * GIB


def test_refused_exports(ecs: Any, server: LocalCloud, exported: str) -> None:
    def out(image_id: str = exported, **fields: Any) -> str:
        return str(ecs.call("export_image", image_id=image_id, **{"ossbucket": BUCKET, **fields})["TaskId"])

    with ecs.refused("InvalidOSSBucket.NotFound", 400):
        out(ossbucket="nowhere")
    with ecs.refused("InvalidOSSPrefix.Malformed", 400):
        out(ossprefix="a/b")
    with ecs.refused("InvalidImageFormat.Malformed", 400):
        out(image_format="iso")
    with ecs.refused("InvalidImageId.NotFound", 404):
        out("m-none")
    with ecs.refused("OperationDenied", 403):
        out("host-linux")
    with ecs.refused("DryRunOperation", 400):
        out(dry_run=True)
    with server.cloud.engine.hold_clock():
        task_id = out(ossprefix="busy")
        with ecs.refused("ImageIsExporting", 403):
            out()
        with ecs.refused("ImageIsExporting", 403):
            ecs.call("delete_image", image_id=exported)
        for key in ("disk.raw", "disk.raw"):
            order(ecs, source(key))
        ecs.call("cancel_task", task_id=task_id)
        waits = out(image_format="qcow2")
        with ecs.refused("ImageIsExporting", 403):
            ecs.call("delete_image", image_id=exported)
    assert task(ecs, task_id)["Status"] == "Cancelled"
    ecs.wait(lambda t: task(ecs, t), waits, "Finished")
