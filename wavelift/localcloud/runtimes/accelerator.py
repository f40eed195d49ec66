"""Is there a KVM that works? Only a machine that boots can tell: the device may be there and guests still hang."""

import logging
import subprocess
import tempfile
import threading
import time
from pathlib import Path

LOG = logging.getLogger(__name__)

QEMU = "qemu-system-x86_64"
LIMIT = 2.0
_MESSAGE = "accelerator works"
_lock = threading.Lock()
_answer: bool | None = None


def boot_sector(text: str) -> bytes:
    """A disk's first sector that writes a text to the first serial port and halts."""
    code = bytearray(
        b"\xfc\x31\xc0\x8e\xd8"  # cld; xor ax, ax; mov ds, ax
        b"\xbe\x00\x00"  # mov si, text (filled in below)
        b"\xba\xf8\x03"  # mov dx, 0x3f8
        b"\xac\x84\xc0\x74\x03"  # next: lodsb; test al, al; jz halt
        b"\xee\xeb\xf8"  # out dx, al; jmp next
        b"\xf4\xeb\xfd"  # halt: hlt; jmp halt
    )
    code[6:8] = (0x7C00 + len(code)).to_bytes(2, "little")
    code += text.encode("ascii") + b"\0"
    if len(code) > 510:
        raise ValueError("the text does not fit into a boot sector")
    return bytes(code).ljust(510, b"\0") + b"\x55\xaa"


def kvm_works() -> bool:
    """Asked once per process."""
    global _answer
    with _lock:
        if _answer is None:
            _answer = Path("/dev/kvm").exists() and _boots(["-accel", "kvm", "-cpu", "host"])
            LOG.info("machines run under %s", "KVM" if _answer else "TCG")
        return _answer


def arguments() -> list[str]:
    return ["-accel", "kvm", "-cpu", "host"] if kvm_works() else ["-accel", "tcg,thread=multi", "-cpu", "max"]


def _boots(accelerator: list[str], limit: float = LIMIT) -> bool:
    with tempfile.TemporaryDirectory(prefix="localcloud-probe-") as name:
        disk, serial = Path(name) / "disk", Path(name) / "serial"
        disk.write_bytes(boot_sector(_MESSAGE).ljust(1024 * 1024, b"\0"))
        command = [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-m", "16", *accelerator]
        command += ["-drive", f"file={disk},format=raw,if=virtio", "-serial", f"file:{serial}"]
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        except FileNotFoundError:
            return False
        try:
            deadline = time.monotonic() + limit
            while time.monotonic() < deadline and process.poll() is None:
                if serial.exists() and _MESSAGE in serial.read_text(errors="replace"):
                    return True
                time.sleep(0.02)
            return False
        finally:
            process.kill()
            process.wait()
