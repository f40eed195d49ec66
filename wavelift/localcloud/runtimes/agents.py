"""Running commands inside an instance: what a guest's agent and a host's instance both answer to."""

from dataclasses import dataclass
from typing import Protocol

from wavelift.localcloud.entities import Instance

OUTPUT_LIMIT = 24 * 1024


@dataclass(frozen=True)
class Script:
    content: str
    folder: str  # where it runs; empty for the usual place

    @property
    def interpreter(self) -> list[str]:
        """Empty for a script that names its own."""
        return [] if self.content.startswith("#!") else ["/bin/sh"]


@dataclass(frozen=True)
class Ended:
    exit_code: int
    output: bytes  # its end
    dropped: int  # how many bytes came before that


class AgentError(Exception):
    """Why a command did not run to its end."""


class NotRunning(AgentError):
    """Nobody listens in the instance."""


class NoAnswer(AgentError):
    """Somebody listens, and does not answer in time."""


class NoFolder(AgentError):
    """The working directory does not exist."""


class Interrupted(AgentError):
    """The command was begun, and nobody knows of it any more."""


class Refused(AgentError):
    """The agent does not do what is asked for."""


class Agent(Protocol):
    """Every verb raises AgentError. `name` tells one command of an instance from another."""

    def greet(self, instance: Instance) -> None:
        """Returns when somebody answers."""

    def begin(self, instance: Instance, name: str, script: Script) -> tuple[int, int]:
        """Returns process id and start ticks; 0 ticks where a process id is not used twice."""

    def look(self, instance: Instance, name: str, process: tuple[int, int]) -> Ended | None:
        """None while it runs. What has ended is told once."""

    def end(self, instance: Instance, name: str, process: tuple[int, int]) -> None:
        """End the command with every process it has started."""
