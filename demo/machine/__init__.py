"""The demo source server: two disks, built from Debian packages, as another hypervisor would hand them over."""

from demo.machine.change import write_generation
from demo.machine.recipe import MachineFiles, build

__all__ = ["MachineFiles", "build", "write_generation"]
