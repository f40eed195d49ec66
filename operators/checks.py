"""Did the instance boot? The manifest's checks against what the machine itself shows."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from wavelift.manifest.schema import Check

# A machine that shows one of these on its console will not come up by waiting.
_HOPELESS = (
    r"Kernel panic - not syncing",
    r"\(initramfs\)",
    r"You are in (emergency|rescue) mode",
    r"grub rescue>",
    r"No bootable device",
    r"Operating system not found",
)
_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 3.0


@dataclass(frozen=True)
class CheckResult:
    """One check and what was seen: a console line, or how the port answered."""

    check: str
    passed: bool
    evidence: str


@dataclass(frozen=True)
class CheckOutcome:
    """All checks of one look at the machine. `hopeless` is the console line that ends all hope, or empty."""

    results: tuple[CheckResult, ...]
    hopeless: str

    @property
    def passed(self) -> bool:
        return not self.hopeless and all(result.passed for result in self.results)


def evaluate(checks: Sequence[Check], console: str, address: str) -> CheckOutcome:
    """Look once. Ports are only tried when every console check holds: before that nothing listens."""
    lines = _lines(console)
    results = [_console(check, lines) for check in checks if check.console]
    ready = all(result.passed for result in results)
    for check in checks:
        if check.tcp is not None:
            results.append(
                _tcp(check, address) if ready else CheckResult(str(check), False, "not tried, still booting")
            )
    return CheckOutcome(tuple(results), _hopeless(lines))


def tail(console: str, lines: int = 15) -> str:
    """The last lines of a console, without control sequences and empty lines."""
    return "\n".join(_lines(console)[-lines:])


def _lines(console: str) -> list[str]:
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|[\x00-\x08\x0e-\x1f]", "", console)
    return [line.rstrip() for line in re.split(r"[\r\n]+", plain) if line.strip()]


def _hopeless(lines: Sequence[str]) -> str:
    pattern = re.compile("|".join(_HOPELESS))
    return next((line for line in lines if pattern.search(line)), "")


def _console(check: Check, lines: Sequence[str]) -> CheckResult:
    wanted = check.console or ""
    found = next((line for line in lines if wanted in line), "")
    return CheckResult(str(check), bool(found), found or "not seen")


def _tcp(check: Check, address: str) -> CheckResult:
    """A port answers when it reacts to bytes. An open connection alone proves nothing behind a NAT or a proxy."""
    where = f"{address}:{check.tcp}"
    try:
        with socket.create_connection((address, check.tcp or 0), timeout=_CONNECT_SECONDS) as connection:
            connection.settimeout(0.5)
            try:
                greeting = connection.recv(64)
            except TimeoutError:
                connection.settimeout(_ANSWER_SECONDS)
                connection.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
                answer = connection.recv(64)
                text = answer.decode("latin-1").splitlines()[0] if answer else "closed after our bytes"
                return CheckResult(str(check), True, f"{where} answered: {text}")
            if not greeting:
                return CheckResult(str(check), False, f"{where} closed at once")
            return CheckResult(str(check), True, f"{where} greeted: {greeting.decode('latin-1').strip()}")
    except OSError as error:
        return CheckResult(str(check), False, f"{where}: {error or type(error).__name__}")
