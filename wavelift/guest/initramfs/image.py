"""Giving an initramfs the virtio drivers: one more segment at its end, nothing in it touched."""

import gzip
import stat
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wavelift.guest.errors import ApplianceFailed, UnsupportedGuest
from wavelift.guest.initramfs import cpio, segments
from wavelift.guest.initramfs.drivers import OPTIONAL, REQUIRED, KernelModules, is_module, module_name

# The module folder's own files that depmod reads and does not write.
_DEPMOD_READS = ("modules.builtin", "modules.builtin.modinfo", "modules.order")
_LOAD_LIST = "conf/modules"


@dataclass(frozen=True)
class Initramfs:
    """An initramfs made by initramfs-tools for one kernel, unpacked in memory."""

    version: str
    files: dict[str, cpio.Entry]

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

    def load_list(self) -> bytes:
        """The modules that its init loads by name."""
        return self.files[_LOAD_LIST].content


def read(data: bytes, version: str) -> Initramfs:
    """Unpack an initramfs; refuse what initramfs-tools did not make."""
    try:
        files = segments.merged(segments.split(data))
    except cpio.CpioError as error:
        raise UnsupportedGuest(
            f"the initramfs of kernel {version} cannot be read: {error}",
            "rebuild it on the source with update-initramfs -u -k all and replicate again",
        ) from error
    if "init" not in files or "scripts/functions" not in files:
        raise UnsupportedGuest(
            f"the initramfs of kernel {version} was not made by initramfs-tools",
            "only Debian's and Ubuntu's own initramfs is handled so far; install initramfs-tools on the source",
        )
    if _LOAD_LIST not in files:
        raise UnsupportedGuest(
            f"the initramfs of kernel {version} has no {_LOAD_LIST}",
            "rebuild it on the source with update-initramfs -u -k all and replicate again",
        )
    return Initramfs(version, files)


def missing(initramfs: Initramfs, kernel: KernelModules) -> list[str]:
    """What the initramfs lacks for virtio, in words; empty when it has all."""
    present = initramfs.modules()
    listed = parse_names((initramfs.table("modules.dep") or b"").decode())
    loaded = initramfs.load_list().decode().split()
    lacks = []
    for path in needed_modules(kernel):
        name = module_name(path)
        if name not in present:
            lacks.append(f"module {name}")
        elif name not in listed:
            lacks.append(f"{name} in modules.dep")
    lacks += [f"{name} in {_LOAD_LIST}" for name in REQUIRED if name not in kernel.builtin and name not in loaded]
    return lacks


def needed_modules(kernel: KernelModules) -> list[str]:
    return kernel.resolve([*REQUIRED, *(name for name in OPTIONAL if kernel.has(name))])


def parse_names(modules_dep: str) -> set[str]:
    return {module_name(line.partition(":")[0]) for line in modules_dep.splitlines() if ":" in line}


def extension(initramfs: Initramfs, kernel: KernelModules, read_module: Callable[[str], bytes], mtime: int) -> bytes:
    """The segment to append, gzipped; empty when nothing is missing. `read_module` takes a path of modules.dep."""
    if not missing(initramfs, kernel):
        return b""
    present = initramfs.modules()
    added = {
        f"{initramfs.folder}/{path}": read_module(path)
        for path in needed_modules(kernel)
        if module_name(path) not in present
    }
    files = dict(added)
    for name, content in _depmod(initramfs, added).items():
        if initramfs.table(name) != content:
            files[f"{initramfs.folder}/{name}"] = content
    extended = extend_load_list(initramfs.load_list(), kernel)
    if extended != initramfs.load_list():
        files[_LOAD_LIST] = extended
    entries = [cpio.folder(path, mtime) for path in _folders(files) if path not in initramfs.files]
    entries += [cpio.file(path, content, mtime) for path, content in sorted(files.items())]
    return gzip.compress(cpio.write_archive(entries), mtime=0)


def extend_load_list(content: bytes, kernel: KernelModules) -> bytes:
    """`conf/modules` with the required drivers that are modules."""
    text = content.decode()
    listed = text.split()
    lines = [name for name in REQUIRED if name not in kernel.builtin and name not in listed]
    if text and not text.endswith("\n"):
        text += "\n"
    return (text + "".join(f"{name}\n" for name in lines)).encode()


def append(data: bytes, segment: bytes) -> bytes:
    """An uncompressed archive has to start at a multiple of four, and one may follow later."""
    padding = -len(data) % 4
    return data + b"\0" * padding + segment


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
                    "rebuild the initramfs on the source with update-initramfs -u -k all and replicate again",
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
