"""A machine under QEMU for tests: started on given disks, watched through its console, always taken down."""

import re
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

AHCI = "ahci"
VIRTIO = "virtio"


class ConsoleTimeout(AssertionError):
    """What a test waited for never came; the end of the console says what came instead."""


class Machine:
    """A running QEMU and its serial console."""

    def __init__(self, process: "subprocess.Popen[bytes]", console: Path, http_port: int) -> None:
        self.process = process
        self.http_port = http_port
        self._console = console
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def console(self) -> str:
        return self._console.read_text(errors="replace") if self._console.exists() else ""

    def wait_for(self, pattern: str, seconds: float) -> "re.Match[str]":
        """The first match of `pattern` on the console."""
        deadline = time.monotonic() + seconds
        while True:
            alive = self.process.poll() is None
            found = re.search(pattern, self.console())
            if found:
                return found
            if not alive or time.monotonic() > deadline:
                state = "still runs" if alive else f"ended with status {self.process.returncode}"
                tail = "\n".join(self.console().splitlines()[-40:])
                raise ConsoleTimeout(f"{pattern!r} did not appear in {seconds} s; QEMU {state}:\n{tail}")
            time.sleep(0.2)


def command_line(disks: Sequence[Path], bus: str, console: Path, http_port: int, *, keep_writes: bool) -> list[str]:
    """QEMU's arguments for a machine whose disks and network card are all on `bus`."""
    command = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"]
    command += ["-smp", "2", "-m", "512", "-nodefaults", "-no-user-config", "-display", "none", "-vga", "std"]
    command += ["-serial", f"file:{console}", "-monitor", "none", "-no-reboot"]
    snapshot = "off" if keep_writes else "on"
    for number, disk in enumerate(disks):
        drive = f"file={disk},format=raw,if=none,id=disk{number},snapshot={snapshot},discard=unmap"
        command += ["-drive", drive]
        if bus == AHCI:
            command += ["-device", f"ide-hd,drive=disk{number},bus=ide.{number}"]
        else:
            command += ["-device", f"virtio-blk-pci,drive=disk{number}"]
    card = "e1000" if bus == AHCI else "virtio-net-pci"
    command += ["-netdev", f"user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:{http_port}-:8080"]
    return [*command, "-device", f"{card},netdev=net0,romfile="]


@contextmanager
def boot(disks: Sequence[Path], bus: str, folder: Path, *, keep_writes: bool = False) -> Iterator[Machine]:
    """A machine on `disks`, whose content does not change unless `keep_writes`."""
    folder.mkdir(parents=True, exist_ok=True)
    console = folder / "console.log"
    console.unlink(missing_ok=True)
    port = _free_port()
    command = command_line(disks, bus, console, port, keep_writes=keep_writes)
    with (folder / "qemu.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield Machine(process, console, port)
        finally:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
