"""qemu-img as a child: ended when somebody says so, and by the kernel when this process is killed."""

import subprocess
import threading
from collections.abc import Sequence

from wavelift.localcloud.engine import Interrupted

# What a file from outside may make qemu-img take. The signal is for the death of the thread that starts it, which
# waits for it.
GUARD = ("setpriv", "--pdeathsig", "KILL", "prlimit", f"--as={4 * 1024**3}", "--core=0")
LEAKS = 3


class ConversionFailed(Exception):
    """qemu-img could not read the one file or write the other."""


class Converter:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._closed = False

    def run(self, owner: str, command: Sequence[str]) -> None:
        """One at a time for an owner. Raises ConversionFailed, also when `cancel` ended it.

        Clusters that nothing refers to, which `check` complains of, are no failure.
        """
        with self._lock:
            self._check()
            child = subprocess.Popen(
                [*GUARD, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            self._running[owner] = child
        try:
            _, errors = child.communicate()
        finally:
            with self._lock:
                del self._running[owner]
        self.check()
        if child.returncode not in ({0, LEAKS} if "check" in command else {0}):
            raise ConversionFailed(errors.decode(errors="replace").strip()[-500:] or f"ended by {-child.returncode}")

    def cancel(self, owner: str) -> None:
        with self._lock:
            child = self._running.get(owner)
            if child is not None:
                child.kill()

    def check(self) -> None:
        """Raises Interrupted when the cloud stops; long work in this process asks now and then."""
        with self._lock:
            self._check()

    def _check(self) -> None:
        if self._closed:
            raise Interrupted

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for child in self._running.values():
                child.kill()
