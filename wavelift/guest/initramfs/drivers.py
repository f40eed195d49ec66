"""Which kernel modules a guest needs on virtio, and where its own kernel package has them."""

import gzip
import lzma
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

import zstandard

from wavelift.guest.errors import MissingDriver

# Without these two the guest does not see its root disk. They are also loaded by name, see `initramfs`.
REQUIRED = ("virtio_pci", "virtio_blk")
# Taken along where the kernel has it: volumes may also be offered as SCSI or NVMe.
OPTIONAL = ("virtio_scsi", "nvme")

_SUFFIX = re.compile(r"\.ko(\.(gz|xz|zst))?$")


def module_name(path: str) -> str:
    """`kernel/drivers/block/virtio_blk.ko.xz` is the module `virtio_blk`; dashes count as underscores."""
    return _SUFFIX.sub("", PurePosixPath(path).name).replace("-", "_")


def plain_path(path: str) -> str:
    """Of a module without its compression."""
    return _SUFFIX.sub(".ko", path)


def unpacked(path: str, content: bytes) -> bytes:
    """A module without the compression that its name tells: a tool may keep it otherwise than the package does."""
    if path.endswith(".gz"):
        return gzip.decompress(content)
    if path.endswith(".xz"):
        return lzma.decompress(content)
    if path.endswith(".zst"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(content)
    return content


def is_module(path: str) -> bool:
    return _SUFFIX.search(path) is not None


@dataclass(frozen=True)
class KernelModules:
    """The tables of one kernel's module folder."""

    version: str
    paths: dict[str, str]
    needs: dict[str, tuple[str, ...]]
    builtin: frozenset[str]

    def resolve(self, wanted: Iterable[str]) -> list[str]:
        """The paths of the modules and of all that they need, each after what it needs; built-in ones left out."""
        order: dict[str, None] = {}

        def visit(name: str) -> None:
            for dependency in self.needs[name]:
                if self.paths[dependency] not in order:
                    visit(dependency)
            order[self.paths[name]] = None

        for name in wanted:
            if name in self.builtin:
                continue
            if name not in self.paths:
                raise MissingDriver(
                    f"kernel {self.version} has no driver {name}, neither built in nor as a module",
                    f"install the package of kernel {self.version} that carries {name} on the source "
                    "(Debian: linux-image, Ubuntu: linux-modules), or remove that kernel, and replicate again",
                )
            visit(name)
        return list(order)

    def has(self, name: str) -> bool:
        return name in self.builtin or name in self.paths


def parse_tables(version: str, dep: str, builtin: str) -> KernelModules:
    """Read `modules.dep` and `modules.builtin`."""
    paths: dict[str, str] = {}
    needs: dict[str, tuple[str, ...]] = {}
    for line in dep.splitlines():
        path, colon, rest = line.partition(":")
        if colon:
            paths[module_name(path)] = path
            needs[module_name(path)] = tuple(module_name(item) for item in rest.split())
    return KernelModules(version, paths, needs, frozenset(module_name(line) for line in builtin.split()))
