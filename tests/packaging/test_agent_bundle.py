"""The installer of the agent: holds what the agent imports, and installs and works where there is no Python."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from wavelift.service import tokens
from wavelift.service.client import ServiceClient
from wavelift.service.jobs import JobState

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "packaging" / "agent"
MIB = 1 << 20
KEY = "0123456789abcdef" * 4
ASK_BUCKETS = """
from wavelift.stores.base import Unavailable
from wavelift.stores.bucket import Bucket
from wavelift.stores.oss import OssStore
from wavelift.stores.patience import Patience
from wavelift.stores.s3 import S3Store
bucket = Bucket("http://127.0.0.1:1", "packs", "web", "cn-local", "id", "secret", by_path=True)
for kind in (OssStore, S3Store):
    try:
        kind(lambda: bucket, Patience(0)).put("a", b"data")
    except Unavailable:
        continue
    raise SystemExit(kind.__name__)
"""


def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("agent_build", FOLDER / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_installer_has_just_what_the_agent_imports() -> None:
    listed = set(re.findall(r"^([a-z0-9-]+)", (FOLDER / "requirements.txt").read_text(), re.MULTILINE))
    # Starlette is FastAPI's, libnbd's binding comes from Debian, _typeshed is there for the type checker only.
    assert builder().needed()[1] - {"starlette", "nbd", "_typeshed"} == {name.replace("-", "_") for name in listed}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The installer of a program that does nothing, into folders of the test's own."""
    program = tmp_path / "tree/bin/wavelift-agent"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    subprocess.run(["tar", "-czf", tmp_path / "payload", "-C", tmp_path / "tree", "."], check=True)
    builder()._join("1", tmp_path / "payload", tmp_path / "agent.run")
    script, _, payload = (tmp_path / "agent.run").read_bytes().partition(b"\nexit 0\n")
    text = script.decode()
    for name in ("PREFIX", "CONFIG", "STATE"):
        text = re.sub(f"^{name}=/.*$", f"{name}={tmp_path / name.lower()}", text, flags=re.MULTILINE)
    (tmp_path / "agent.run").write_bytes(text.encode() + b"\nexit 0\n" + payload)
    return tmp_path / "agent.run"


def install(installer: Path, *options: str) -> list[str]:
    """The agent's arguments after it."""
    subprocess.run(["sh", installer, "--no-start", *options], check=True, capture_output=True, text=True)
    return (installer.parent / "config/arguments").read_text().splitlines()


@pytest.mark.skipif(os.geteuid() != 0, reason="the installer asks for root")
def test_an_option_given_later_replaces_its_own_value_and_nothing_else(small: Path) -> None:
    own = ["--state", str(small.parent / "state"), "--token-file", str(small.parent / "config/token")]
    by_hand = ["--max-memory", "512", "--full-priority"]
    assert install(small)[:6] == [*own, "--listen", "0.0.0.0:8442"]
    (small.parent / "config/arguments").unlink()
    first = install(small, "--disk", "data=/b.raw", "--disk", "sda=/a disk.raw")
    data, sda = ["--disk", "data=/b.raw"], ["--disk", "sda=/a disk.raw"]
    assert first == [*own, "--listen", "0.0.0.0:8442", *data, *sda]
    (small.parent / "config/arguments").write_text("\n".join([*first, *by_hand]) + "\n")
    moved = install(small, "--listen", "10.0.0.5:8442")
    assert moved == [*own, *data, *sda, *by_hand, "--listen", "10.0.0.5:8442"]
    assert install(small) == moved
    assert install(small, "--disk", "c=/c") == [*own, *by_hand, "--listen", "10.0.0.5:8442", "--disk", "c=/c"]
    (small.parent / "config/arguments").write_text("\n".join([*own, "--listen=1.2.3.4:5", "--disk=sda=/a"]) + "\n")
    assert install(small, "--listen", "[::1]:0") == [*own, "--disk=sda=/a", "--listen", "[::1]:0"]


@pytest.mark.skipif(os.geteuid() != 0, reason="the installer asks for root")
@pytest.mark.parametrize(
    "address", ["", "8442", "10.0.0.5", "10.0.0.5:", ":8442", "h:70000", "h:84x", "h:1\n--x", "h :1"]
)
def test_what_is_not_host_and_port_is_refused_before_anything_is_written(small: Path, address: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        install(small, "--listen", address)
    assert "HOST:PORT" in refused.value.stderr
    assert not [name for name in ("prefix", "config", "state") if (small.parent / name).exists()]


class Host:
    """A small Debian in a folder, without Python. What runs there has mounts of its own, which end with it."""

    def __init__(self, suite: str, folder: Path) -> None:
        self.root = folder / "host"
        self.root.mkdir()
        subprocess.run(["tar", "-xf", _debian(suite), "-C", self.root], check=True)
        assert not list(self.root.glob("usr/bin/python3*"))

    def command(self, *command: str, network: bool = False) -> list[str]:
        inside = 'mount -t proc proc "$0/proc" && mount --bind /dev "$0/dev" && exec chroot "$0" "$@"'
        offline = [] if network else ["--net"]
        return ["unshare", "--mount", *offline, "sh", "-c", inside, str(self.root), *command]

    def run(self, *command: str) -> str:
        done = subprocess.run(
            self.command(*command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


def _debian(suite: str) -> Path:
    archive = REPOSITORY / ".wavelift" / "hosts" / f"{suite}.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        part = archive.with_suffix(".part.tar")
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", suite, str(part)], check=True)
        part.rename(archive)
    return archive


@contextmanager
def service(command: list[str], log: Path) -> Iterator[dict[str, Any]]:
    """What a service says when it listens."""
    with log.open("a") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        yield json.loads(line)
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def installer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = builder().main(tmp_path_factory.mktemp("bundle"))
    return path


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[dict[str, Any]]:
    (tmp_path / "devices").mkdir()
    (tmp_path / "key").write_text(KEY)
    command = [sys.executable, "-m", "wavelift.cli.main", "gateway", "--listen", "127.0.0.1:0"]
    command += ["--state", str(tmp_path / "gw"), "--devices", str(tmp_path / "devices")]
    with service([*command, "--key-file", str(tmp_path / "key")], tmp_path / "gateway.log") as said:
        yield said


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="chroot is root's")
@pytest.mark.parametrize("suite", ["bullseye", "bookworm"])
def test_installs_offline_replicates_an_image_and_leaves_nothing(
    suite: str, installer: Path, gateway: dict[str, Any], tmp_path: Path
) -> None:
    host = Host(suite, tmp_path)
    content = random.Random(3).randbytes(5 * MIB) + bytes(3 * MIB) + b"end of disk" + bytes(MIB - 11)
    (host.root / "disk.raw").write_bytes(content)
    (host.root / "agent.run").write_bytes(installer.read_bytes())
    before = {path for path in (host.root / "etc").rglob("*")} | set((host.root / "var/lib").iterdir())

    said = host.run("sh", "/agent.run", "--listen", "127.0.0.1:0", "--disk", "sda=/disk.raw")
    assert "does not run systemd" in said
    start = re.search(r"Start it by hand: (.+)", said)
    assert start is not None
    secret_file = host.root / "etc/wavelift-agent/token"
    secret = secret_file.read_text()
    assert re.fullmatch("[0-9a-f]{64}", secret) and secret_file.stat().st_mode & 0o777 == 0o600 and secret not in said

    (tmp_path / "devices/virtio-v1").symlink_to(tmp_path / "volume")
    (tmp_path / "volume").write_bytes(random.Random(4).randbytes(len(content)))
    job = {
        "kind": "replicate",
        "migration": "web",
        "generation": 1,
        "disks": [
            {
                "disk": "sda",
                "sink": {
                    "kind": "gateway",
                    "url": gateway["url"],
                    "fingerprint": gateway["fingerprint"],
                    "volume": "v1",
                    "generation": 1,
                    "token": tokens.issue(KEY, migration="web", scope="write", volumes=["v1"], lifetime=600),
                },
            }
        ],
    }
    agent_command = host.command(*start[1].split(), network=True)
    with (
        service(agent_command, tmp_path / "agent.log") as agent,
        ServiceClient(agent["url"], secret, agent["fingerprint"]) as client,
    ):
        assert [disk["size"] for disk in client.get("/v1/disks")] == [len(content)]
        client.submit("web/1/copy", job)
        while not (status := client.job("web/1/copy")).state.final:
            time.sleep(0.1)
        assert status.state is JobState.SUCCEEDED, status.error
    assert (tmp_path / "volume").read_bytes() == content
    host.run("/opt/wavelift-agent/bin/python3", "-I", "-c", "from wavelift.sources.nbd import binding; binding().NBD()")
    # The stores of archives, with their SDKs and what those load; no answer comes, as nothing listens.
    host.run("/opt/wavelift-agent/bin/python3", "-I", "-c", ASK_BUCKETS)

    host.run("sh", "/agent.run")
    assert secret_file.read_text() == secret
    assert "sda=/disk.raw" in (host.root / "etc/wavelift-agent/arguments").read_text()
    assert any((host.root / "var/lib/wavelift-agent/migrations/web").iterdir())
    host.run("sh", "/agent.run", "--uninstall")
    assert {path for path in (host.root / "etc").rglob("*")} | set((host.root / "var/lib").iterdir()) == before
    assert not list((host.root / "opt").iterdir())


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="chroot is root's")
def test_a_damaged_file_installs_nothing(installer: Path, tmp_path: Path) -> None:
    host = Host("bullseye", tmp_path)
    damaged = bytearray(installer.read_bytes())
    damaged[-1000] ^= 1
    (host.root / "agent.run").write_bytes(damaged)
    with pytest.raises(AssertionError, match="this file is damaged"):
        host.run("sh", "/agent.run")
    assert not list((host.root / "opt").iterdir())
