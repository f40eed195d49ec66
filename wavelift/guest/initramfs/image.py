"""Giving an initramfs the virtio drivers: one more segment at its end, nothing in it touched."""

import stat
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

from wavelift.guest.errors import ApplianceFailed, UnsupportedGuest
from wavelift.guest.initramfs import cpio, segments
from wavelift.guest.initramfs.drivers import (
    OPTIONAL,
    REQUIRED,
    KernelModules,
    is_module,
    module_name,
    plain_path,
    unpacked,
)

# The module folder's own files that depmod reads and does not write.
_DEPMOD_READS = ("modules.builtin", "modules.builtin.modinfo", "modules.order")
_LOAD_LIST = "conf/modules"
_OF_DRACUT = ("usr/lib/dracut/", "lib/dracut/", "var/lib/dracut/")
_REBUILD = "rebuild it on the source (update-initramfs -u -k all, dracut --regenerate-all --force) and replicate again"


class Tool(StrEnum):
    """What made an initramfs. udev loads what the hardware asks for in those of dracut and mkinitcpio; that of
    initramfs-tools also has a list."""

    INITRAMFS_TOOLS = "initramfs-tools"
    DRACUT = "dracut"
    MKINITCPIO = "mkinitcpio"


@dataclass(frozen=True)
class Initramfs:
    """An initramfs made for one kernel, unpacked in memory."""

    version: str
    files: dict[str, cpio.Entry]
    tool: Tool

    @property
    def folder(self) -> str:
        """Where its modules lie; `lib` may be a link."""
        lib = self.files.get("lib")
        below = "usr/lib" if lib is not None and stat.S_ISLNK(lib.mode) else "lib"
        return f"{below}/modules/{self.version}"

    def modules(self) -> dict[str, str]:
        """Path in the archive by module name."""
        return {
            module_name(path): path for path in self.files if path.startswith(f"{self.folder}/") and is_module(path)
        }

    def table(self, name: str) -> bytes | None:
        entry = self.files.get(f"{self.folder}/{name}")
        return entry.content if entry else None

    def load_list(self) -> bytes | None:
        """The modules that its init loads by name, where it has such a list."""
        return self.files[_LOAD_LIST].content if self.tool is Tool.INITRAMFS_TOOLS else None


def read(data: bytes, version: str) -> Initramfs:
    """Unpack an initramfs; refuse what none of the tools made."""
    try:
        files = segments.merged(segments.split(data))
    except cpio.CpioError as error:
        raise UnsupportedGuest(
            f"the initramfs of kernel {version} cannot be read: {error}",
            _REBUILD,
        ) from error
    tool = _made_by(files)
    if tool is None:
        raise UnsupportedGuest(
            f"the initramfs of kernel {version} was made by none of {', '.join(Tool)}",
            "make it with the tool of the distribution on the source, and replicate again",
        )
    if tool is Tool.INITRAMFS_TOOLS and _LOAD_LIST not in files:
        raise UnsupportedGuest(f"the initramfs of kernel {version} has no {_LOAD_LIST}", _REBUILD)
    return Initramfs(version, files, tool)


def _made_by(files: dict[str, cpio.Entry]) -> Tool | None:
    if "init" not in files:
        return None
    if "scripts/functions" in files:
        return Tool.INITRAMFS_TOOLS
    if any(path.startswith(_OF_DRACUT) for path in files):
        return Tool.DRACUT
    # Without udev its init loads what was there when it was made, and nothing else.
    if "init_functions" in files and any(path.endswith(("/udevadm", "/systemd-udevd")) for path in files):
        return Tool.MKINITCPIO
    return None


def missing(initramfs: Initramfs, kernel: KernelModules) -> list[str]:
    """What the initramfs lacks for virtio, in words; empty when it has all."""
    present = initramfs.modules()
    listed = parse_names((initramfs.table("modules.dep") or b"").decode())
    loads = initramfs.load_list()
    lacks = []
    for path in needed_modules(kernel):
        name = module_name(path)
        if name not in present:
            lacks.append(f"module {name}")
        elif name not in listed:
            lacks.append(f"{name} in modules.dep")
    if loads is not None:
        loaded = loads.decode().split()
        lacks += [f"{name} in {_LOAD_LIST}" for name in REQUIRED if name not in kernel.builtin and name not in loaded]
    return lacks


def needed_modules(kernel: KernelModules) -> list[str]:
    return kernel.resolve([*REQUIRED, *(name for name in OPTIONAL if kernel.has(name))])


def parse_names(modules_dep: str) -> set[str]:
    return {module_name(line.partition(":")[0]) for line in modules_dep.splitlines() if ":" in line}


def extension(
    initramfs: Initramfs,
    kernel: KernelModules,
    read_module: Callable[[str], bytes],
    others: Mapping[str, bytes],
    mtime: int,
) -> bytes:
    """The archive to append; empty when nothing is missing. `read_module` takes a path of modules.dep;
    `others` are files by path that it must have as well."""
    files = {path: content for path, content in others.items() if not _has(initramfs, path, content)}
    if missing(initramfs, kernel):
        files |= _drivers(initramfs, kernel, read_module)
    if not files:
        return b""
    entries = [cpio.folder(path, mtime) for path in _folders(files) if path not in initramfs.files]
    entries += [cpio.file(path, content, mtime) for path, content in sorted(files.items())]
    return cpio.write_archive(entries)


def _drivers(initramfs: Initramfs, kernel: KernelModules, read_module: Callable[[str], bytes]) -> dict[str, bytes]:
    present = initramfs.modules()
    plain = any(path.endswith(".ko") for path in present.values())
    added = {}
    for path in needed_modules(kernel):
        if module_name(path) not in present:
            # Where its tool unpacks modules, nothing in it may be able to.
            content = read_module(path)
            kept = plain_path(path) if plain else path
            added[f"{initramfs.folder}/{kept}"] = unpacked(path, content) if plain else content
    files = dict(added)
    for name, content in _depmod(initramfs, added).items():
        if initramfs.table(name) != content:
            files[f"{initramfs.folder}/{name}"] = content
    loads = initramfs.load_list()
    if loads is not None and (extended := extend_load_list(loads, kernel)) != loads:
        files[_LOAD_LIST] = extended
    return files


def _has(initramfs: Initramfs, path: str, content: bytes) -> bool:
    entry = initramfs.files.get(path)
    return entry is not None and entry.content == content


def extend_load_list(content: bytes, kernel: KernelModules) -> bytes:
    """`conf/modules` with the required drivers that are modules."""
    text = content.decode()
    listed = text.split()
    lines = [name for name in REQUIRED if name not in kernel.builtin and name not in listed]
    if text and not text.endswith("\n"):
        text += "\n"
    return (text + "".join(f"{name}\n" for name in lines)).encode()


def _folders(files: dict[str, bytes]) -> list[str]:
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents}
    return sorted(folders - {"."})


def _depmod(initramfs: Initramfs, added: dict[str, bytes]) -> dict[str, bytes]:
    """The module tables over what the initramfs has and what is added, made by this machine's depmod."""
    with tempfile.TemporaryDirectory(prefix="wavelift-depmod-") as scratch:
        base = Path(scratch) / "lib/modules" / initramfs.version
        base.mkdir(parents=True)
        present = {path: initramfs.files[path].content for path in initramfs.modules().values()}
        for path, content in (present | added).items():
            below = PurePosixPath(path).relative_to(initramfs.folder)
            if ".." in below.parts:
                raise UnsupportedGuest(
                    f"a module's path leads out of its folder: {path}",
                    _REBUILD,
                )
            target = base / below
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        for name in _DEPMOD_READS:
            table = initramfs.table(name)
            if table is not None:
                (base / name).write_bytes(table)
        command = ["/sbin/depmod", "-b", scratch, initramfs.version]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ApplianceFailed(f"depmod failed: {done.stderr.strip()}", "install kmod on the gateway")
        return {
            path.name: path.read_bytes()
            for path in base.glob("modules.*")
            if path.is_file() and path.name not in _DEPMOD_READS
        }
