"""A live guest with two databases on two disks (qcow2 and raw), and a real guest agent in it."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

from tests.sources import database_guest, small_guest

MIB = 1 << 20
SIZES = {"first": 192 * MIB, "second": 320 * MIB}
MODULES = ("crc32c_generic", "ext4", "xfs", "virtio_console")


class LiveGuest:
    """Boots on creation; `committed` once it writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.monitor = folder / "qmp"
        self.agent = folder / "agent"
        command = small_guest.command(folder, Path(database_guest.__file__), MODULES, "/dev/vda", "/dev/vdb")
        for name, kind, make in (
            ("first", "qcow2", ["mkfs.ext4", "-q", "-F"]),
            ("second", "raw", ["mkfs.xfs", "-q", "-f"]),
        ):
            raw, image = folder / f"{name}.raw", folder / f"{name}.image"
            with raw.open("wb") as file:
                file.truncate(SIZES[name])
            subprocess.run([*make, raw], check=True)
            subprocess.run(["qemu-img", "convert", "-O", kind, raw, image], check=True)
            raw.unlink()
            # No flush reaches this machine's disk: only QEMU has to be consistent, and it is not killed.
            cache = "cache.direct=off,cache.no-flush=on"
            command += ["-blockdev", f"driver={kind},node-name={name},{cache},file.driver=file,file.filename={image}"]
            command += ["-device", f"virtio-blk-pci,drive={name},id=disk-{name}"]
        command += [
            *("-qmp", f"unix:{self.monitor},server=on,wait=off"),
            *("-device", "virtio-serial-pci"),
            *("-chardev", f"socket,path={self.agent},server=on,wait=off,id=agent"),
            *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
        ]
        self._console = folder / "console"
        with self._console.open("wb") as console:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=console, stderr=console)

    def source(self, name: str, *, freeze: bool) -> str:
        return f"qmp:{self.monitor}?node={name}" + (f"&agent={self.agent}" if freeze else "")

    def committed(self) -> int:
        """The last transaction that the console says was committed to both; 0 before any."""
        said = re.findall(rb"^committed (\d+)\r?\n", self._console.read_bytes(), re.MULTILINE)
        return int(said[-1]) if said else 0

    def wait_for(self, number: int, seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while self.committed() < number:
            assert self.process.poll() is None and time.monotonic() < deadline, self._console.read_text()[-4000:]
            time.sleep(0.1)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
