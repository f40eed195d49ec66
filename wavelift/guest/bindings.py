"""Debian's Python bindings of C libraries, which lie outside every virtual environment."""

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from wavelift.guest.errors import ApplianceFailed

_DEBIAN = Path("/usr/lib/python3/dist-packages")


def load(modules: Mapping[str, str], package: str) -> ModuleType:
    """The last of `modules`, each a name and the pattern of its file: just these are taken, not their folder.
    `package` is Debian's that has them."""
    name = list(modules)[-1]
    if importlib.util.find_spec(name) is not None:
        return importlib.import_module(name)
    for each, pattern in modules.items():
        path = next(_DEBIAN.glob(pattern), None)
        spec = importlib.util.spec_from_file_location(each, path) if path else None
        if spec is None or spec.loader is None:
            raise ApplianceFailed(f"the {name} binding is not installed for this Python", f"install {package}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[each] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
