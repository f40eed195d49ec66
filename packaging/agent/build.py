"""Builds the agent as one file that installs itself on any x86-64 Linux, without the internet and without Python.

The file is a shell script followed by an archive: Debian's Python with its own C library and loader, so that neither
the host's Python nor its age matters, the wheels of requirements.txt, libnbd, and the agent's part of Wavelift.
"""

from __future__ import annotations

import ast
import hashlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
SUITE = "bookworm"
PYTHON = "3.11"
PACKAGES = (f"python{PYTHON}-minimal", f"libpython{PYTHON}-stdlib", "python3-libnbd")
ENTRIES = ("wavelift.cli.main", "wavelift.agent.command")
LIBRARIES = "lib/x86_64-linux-gnu"
LOADER = "ld-linux-x86-64.so.2"
# The standard library without its tests, its graphical parts and what installs packages.
UNUSED = ("test", "ensurepip", "idlelib", "lib2to3", "tkinter", "turtledemo", "pydoc_data", "distutils", "config-*")
# Modules that need a library of their own and that nothing here imports.
UNUSED_MODULES = ("nis", "_dbm", "readline", "_curses", "ossaudiodev", "_test", "_ctypes_test", "xx", "_xx")

# Pure Python, and published as source only. Of what it needs, crcmod is so too, with a part in C: crcmod-plus is the
# same as a wheel.
OSS, OSS_NEEDS = "oss2", ("crcmod-plus", "aliyun-python-sdk-kms", "pycryptodome", "six")
# Of the packages: models of three hundred services besides S3, and tests.
UNUSED_DATA = {"botocore/data": ("s3",), "boto3/data": (), "boto3/examples": (), "Crypto/SelfTest": ()}

PYTHON_LAUNCHER = f"""#!/bin/sh
# The loader is named so that the host's C library is never used; --argv0 so that children are started this way, too.
here=$(cd "$(dirname "$0")/.." && pwd)
exec "$here/lib/{LOADER}" --inhibit-cache --library-path "$here/lib" \\
  --argv0 "$here/bin/python3" "$here/bin/python{PYTHON}" "$@"
"""
AGENT_LAUNCHER = """#!/bin/sh
exec "$(dirname "$0")/python3" -I -m wavelift.cli.main agent "$@"
"""


def main(target: Path) -> Path:
    """Writes the installer into the folder `target`; needs Debian's archive and the package index."""
    version = _version()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "debian"
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=extract", f"--include={','.join(PACKAGES)}", SUITE, str(root)],
            check=True,
        )
        tree = Path(scratch) / "tree"
        assemble(root, tree)
        archive = Path(scratch) / "payload.tar.gz"
        _pack(tree, archive)
        target.mkdir(parents=True, exist_ok=True)
        installer = target / f"wavelift-agent-{version}-x86_64.run"
        _join(version, archive, installer)
    return installer


def assemble(root: Path, tree: Path) -> None:
    """The program's folder out of an unpacked Debian."""
    library = tree / "lib" / f"python{PYTHON}"
    packages = tree / "lib" / "python3" / "dist-packages"
    (tree / "bin").mkdir(parents=True)
    shutil.copy2(root / "usr" / "bin" / f"python{PYTHON}", tree / "bin")
    shutil.copytree(
        root / "usr" / "lib" / f"python{PYTHON}", library, ignore=shutil.ignore_patterns(*UNUSED), symlinks=True
    )
    for module in (library / "lib-dynload").iterdir():
        if module.name.startswith(UNUSED_MODULES):
            module.unlink()
    packages.mkdir(parents=True)
    for module in (root / "usr" / "lib" / "python3" / "dist-packages").glob("*nbd*"):
        if module.name != "nbdsh.py":
            shutil.copy2(module, packages)
    _wheels(packages)
    for module in needed()[0]:
        file = source_of(module).relative_to(REPOSITORY)
        (packages / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / file, packages / file)
    _libraries(root, tree)
    for notice in (root / "usr" / "share" / "doc").glob("*/copyright"):
        (tree / "licenses").mkdir(exist_ok=True)
        shutil.copyfile(notice, tree / "licenses" / notice.parent.name)
    shutil.copy2(HERE / "wavelift-agent.service", tree)
    for name, text in (("python3", PYTHON_LAUNCHER), ("wavelift-agent", AGENT_LAUNCHER)):
        launcher = tree / "bin" / name
        launcher.write_text(text)
        launcher.chmod(0o755)
    # By content, not by time: archives and copies change times.
    compiling = ["-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(tree / "lib")]
    subprocess.run([tree / "bin" / "python3", *compiling], check=True)


def needed() -> tuple[set[str], set[str]]:
    """(modules of ours, packages that are neither ours nor Python's own) that the agent imports, at once or later."""
    ours: set[str] = set()
    others: set[str] = set()
    waiting = list(ENTRIES)
    while waiting:
        module = waiting.pop()
        if module in ours:
            continue
        ours.add(module)
        if "." in module:
            waiting.append(module.rpartition(".")[0])
        for name in _imports(source_of(module)):
            top = name.split(".")[0]
            if top == "wavelift":
                waiting.append(name)
            elif top not in sys.stdlib_module_names:
                others.add(top)
    return ours, others


def source_of(module: str) -> Path:
    path = REPOSITORY.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            for alias in node.names:
                # The name is a module itself, or a thing in one.
                if source_of(f"{node.module}.{alias.name}").exists():
                    yield f"{node.module}.{alias.name}"


def _wheels(packages: Path) -> None:
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in (17, 28, 34)]
    listed = re.findall(r"^([a-z0-9-]+)", (HERE / "requirements.txt").read_text(), re.MULTILINE)
    _pip(
        packages,
        *("--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}"),
        *(*platforms, "--platform=manylinux2014_x86_64"),
        *(*OSS_NEEDS, *(name for name in listed if name != OSS)),
    )
    _pip(packages, "--no-deps", "--no-build-isolation", OSS)
    shutil.rmtree(packages / "bin", ignore_errors=True)
    for folder, kept in UNUSED_DATA.items():
        for path in (packages / folder).iterdir():
            if path.is_dir() and path.name not in kept:
                shutil.rmtree(path)


def _pip(packages: Path, *options: str) -> None:
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"),
            *("--target", str(packages), "-c", str(REPOSITORY / "constraints.txt"), *options),
        ],
        check=True,
    )


def _libraries(root: Path, tree: Path) -> None:
    """Every library that the program and its modules ask for, by the loader's own word."""
    folders = [root / LIBRARIES, root / "usr" / LIBRARIES]
    loader = (root / LIBRARIES / LOADER).resolve()
    wanted = {LOADER: loader, "libgcc_s.so.1": root / LIBRARIES / "libgcc_s.so.1"}
    for binary in (tree / "bin" / f"python{PYTHON}", *sorted(tree.rglob("*.so"))):
        listing = subprocess.run(
            [loader, "--inhibit-cache", "--library-path", ":".join(map(str, folders)), "--list", binary],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for name, path in re.findall(r"^\s*(\S+) => (\S+) \(", listing, re.MULTILINE):
            if not Path(path).is_relative_to(root):
                raise SystemExit(f"{binary.name} needs {name}, which is not among the packages {PACKAGES}")
            wanted[Path(name).name] = Path(path)
    for name, path in wanted.items():
        shutil.copy2(path.resolve(), tree / "lib" / name)


def _pack(tree: Path, archive: Path) -> None:
    # The same content gives the same file.
    subprocess.run(
        [
            *("tar", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"),
            *("--use-compress-program=gzip -9n", "-cf", str(archive), "-C", str(tree), "."),
        ],
        check=True,
    )


def _join(version: str, archive: Path, installer: Path) -> None:
    payload = archive.read_bytes()
    script = (HERE / "install.sh").read_text()
    values = {
        "VERSION": version,
        "SHA256": hashlib.sha256(payload).hexdigest(),
        "PAYLOAD_LINE": str(script.count("\n") + 1),
    }
    for name, value in values.items():
        script = script.replace(f"={'@'}{name}@", f"={value}")
    part = installer.with_suffix(".part")
    part.write_bytes(script.encode() + payload)
    part.chmod(0o755)
    part.replace(installer)


def _version() -> str:
    found = re.search(r'__version__ = "(.+)"', (REPOSITORY / "wavelift" / "__init__.py").read_text())
    if found is None:
        raise SystemExit("wavelift/__init__.py names no version")
    return found[1]


if __name__ == "__main__":
    if sysconfig.get_platform() != "linux-x86_64":
        raise SystemExit("The agent is built on x86-64 Linux only.")
    print(main(Path(sys.argv[1])))
