"""Disk image files from outside: what they are, and whether they may be opened.

They are hostile until their header says otherwise: a qcow2 file can name other files to read, and QEMU follows. So the
header is read here, and QEMU gets a file only when it refers to nothing else, with its format stated.
"""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wavelift.localcloud.entities import GIB

LARGEST = 2048 * GIB
QEMU_NAMES = {"RAW": "raw", "QCOW2": "qcow2", "VHD": "vpc", "VMDK": "vmdk", "VDI": "vdi"}
OPTIONS = {"VHD": ("-o", "subformat=dynamic,force_size=on")}
CONVERT = ("qemu-img", "convert", "-W")

_QCOW2 = b"QFI\xfb"
_VHD = b"conectix"
_FOREIGN = {b"KDMV": "VMDK", b"COWD": "VMDK", b"vhdxfile": "VHDX", b"<<< ": "VDI"}
_VHD_KINDS = {2, 3}  # fixed and dynamic; 4 refers to a parent
_DATA_FILE, _COMPRESSION, _EXTENDED_L2 = 4, 8, 16
_KNOWN_FEATURES = _COMPRESSION | _EXTENDED_L2

Read = Callable[[int, int], bytes]


@dataclass
class Unfit(Exception):
    """The file cannot become a disk; code as the real service has it."""

    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def malformed(message: str) -> Unfit:
    return Unfit("InvalidImageFormat.Malformed", message)


def detect(read: Read, size: int) -> str:
    """RAW is what nothing else claims."""
    head, tail = read(0, 8), read(max(0, size - 512), 8)
    for magic, name in _FOREIGN.items():
        if head.startswith(magic):
            raise malformed(f"The file is a {name} file.")
    if head.startswith(_QCOW2):
        return "QCOW2"
    return "VHD" if _VHD in {head, tail} else "RAW"


def inspect(kind: str, read: Read, size: int) -> int:
    """The size of the disk in bytes. Raises Unfit for what refers to other files, is encrypted, broken or too large."""
    if kind == "RAW":
        virtual = size
    elif kind == "QCOW2":
        virtual = _qcow2(read)
    else:
        virtual = _vhd(read, size)
    if not 0 < virtual <= LARGEST:
        raise Unfit("InvalidImageSize", f"The disk in the file has {virtual} bytes; {LARGEST} are the most.")
    return virtual


def _qcow2(read: Read) -> int:
    header = read(0, 104)
    if len(header) < 72 or not header.startswith(_QCOW2):
        raise malformed("The file is not a qcow2 file.")
    version, backing, _, _, virtual, encryption = struct.unpack(">IQIIQI", header[4:36])
    if version not in {2, 3}:
        raise malformed(f"The file has version {version} of qcow2.")
    if backing:
        raise malformed("The file needs a backing file.")
    if encryption:
        raise malformed("The file is encrypted.")
    if version == 3:
        (features,) = struct.unpack(">Q", header[72:80])
        if features & _DATA_FILE:
            raise malformed("The file keeps its data in another file.")
        if features & ~_KNOWN_FEATURES:
            raise malformed("The file is marked as open or corrupt, or has features that are not known.")
    return int(virtual)


def _vhd(read: Read, size: int) -> int:
    footer = read(max(0, size - 512), 512)
    if not footer.startswith(_VHD):
        footer = read(0, 512)
    if len(footer) < 64 or not footer.startswith(_VHD):
        raise malformed("The file is not a VHD file.")
    if struct.unpack(">I", footer[60:64])[0] not in _VHD_KINDS:
        raise malformed("The file needs a parent.")
    return int(struct.unpack(">Q", footer[48:56])[0])


def to_raw(kind: str, source: Path, target: Path) -> list[list[str]]:
    """The driver is stated, and that of the file below it: nothing in the file decides what else is opened.

    Of a file that was cut short QEMU reads zeros; the check finds that, for the format that has one.
    """
    node: dict[str, object] = {"driver": QEMU_NAMES[kind], "file": {"driver": "file", "filename": str(source)}}
    if kind == "QCOW2":
        node["backing"] = None
    name = f"json:{json.dumps(node)}"
    check = [["qemu-img", "check", "-q", name]] if kind == "QCOW2" else []
    return [*check, [*CONVERT, "-O", "raw", name, str(target)]]


def from_raw(kind: str, source: Path, target: Path) -> list[str]:
    node = {"driver": "raw", "file": {"driver": "file", "filename": str(source)}}
    return [*CONVERT, "-O", QEMU_NAMES[kind], *OPTIONS.get(kind, ()), f"json:{json.dumps(node)}", str(target)]
