"""The JavaScript SDKs, installed once into a cache of the repository, and Node to run them."""

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent / "node"
CACHE = Path(__file__).parents[3] / ".wavelift" / "node"
LOCK = "package-lock.json"

RunNode = Callable[..., Any]


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The folder with the modules of `node/package.json`."""
    if missing := [program for program in ("node", "npm") if shutil.which(program) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as claim:
        fcntl.flock(claim, fcntl.LOCK_EX)
        # The mark is written last: an installation that was cut short is made again.
        mark = CACHE / "installed"
        if not mark.exists() or mark.read_bytes() != (HERE / LOCK).read_bytes():
            for name in ("package.json", LOCK):
                shutil.copy(HERE / name, CACHE / name)
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
            done = subprocess.run(command, cwd=CACHE, capture_output=True, text=True, timeout=300)
            if done.returncode:
                pytest.skip(f"npm could not install the JavaScript SDKs: {done.stderr.strip()[-300:]}")
            shutil.copy(HERE / LOCK, mark)
    return CACHE / "node_modules"


@pytest.fixture(scope="session")
def run_node(node_modules: Path) -> RunNode:
    """`run_node("script.js", **settings)`: the script reads SETTINGS (JSON) and prints one JSON value."""

    def run(script: str, **settings: Any) -> Any:
        # Proxies would swallow calls to 127.0.0.1.
        kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        environment = {**kept, "NODE_PATH": str(node_modules), "SETTINGS": json.dumps(settings)}
        done = subprocess.run(
            ["node", str(HERE / script)], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
