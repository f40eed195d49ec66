"""Everything a migration needs, on this machine: local cloud, source with its agent, Airflow. Start, find, stop."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from alibabacloud_ecs20140526.client import Client
from alibabacloud_tea_openapi.utils_models import Config

from demo.airflow_api import AirflowApi
from demo.machine import build
from demo.parts import (
    BUCKET,
    CLOUD,
    REPO,
    free_port,
    prepare_bucket,
    prepare_network,
    start_agent,
    start_airflow,
    start_cloud,
    wavelift,
)
from demo.processes import StackError, Started, log_tail, stop
from demo.secrets import StackSecrets
from wavelift.localcloud.accounts import ACCOUNT
from wavelift.localcloud.volume import Volume

HOME = REPO / ".wavelift"
BUILD = HOME / "build"
DEFAULT_STATE = HOME / "stack"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Stack:
    """A running stack, as its file describes it."""

    state: Path
    airflow_url: str
    cloud_endpoint: str
    oss_endpoint: str
    agent_url: str
    agent_fingerprint: str
    processes: tuple[Started, ...]

    @property
    def secrets(self) -> StackSecrets:
        return StackSecrets.of(self.state / "secrets.json")

    @property
    def data_disk(self) -> Path:
        """The source's data disk, which the demo changes as a running server would."""
        return self.state / "source" / "data.img"

    @property
    def evidence(self) -> Path:
        return self.state / "evidence"

    def airflow(self) -> AirflowApi:
        return AirflowApi(self.airflow_url, "admin", self.secrets.airflow_password)

    def cloud(self) -> Client:
        """The real ECS SDK, pointed at this stack's cloud."""
        return ecs_client(self.cloud_endpoint, self.access_key)

    @property
    def access_key(self) -> tuple[str, str]:
        """Id and secret."""
        return access_key(self.state)

    def running(self) -> bool:
        return all(process.alive() for process in self.processes)

    def check(self) -> None:
        """Raises StackError when a part has ended by itself, with the end of its log."""
        for process in self.processes:
            if not process.alive():
                tail = log_tail(Path(process.log))
                raise StackError(f"{process.name} has ended; its log {process.log} ends with:\n{tail}")

    def stop(self) -> list[str]:
        """End everything it started; returns what did not end by itself."""
        killed = _end(self.processes, self.state)
        _file(self.state).unlink(missing_ok=True)
        return killed


def find(state: Path = DEFAULT_STATE) -> Stack | None:
    """The stack that was left running there, None when there is none; remains of a dead one are ended."""
    if not _file(state).exists():
        return None
    raw = json.loads(_file(state).read_text())
    processes = tuple(Started(**each) for each in raw.pop("processes"))
    stack = Stack(state=state, processes=processes, **raw)
    if stack.running():
        return stack
    stack.stop()
    return None


def launch(state: Path = DEFAULT_STATE, *, say: Say = print, manifests: Path | None = None, port: int = 0) -> Stack:
    """Start a fresh stack; whatever an earlier one left in `state` is removed. Raises StackError."""
    if find(state) is not None:
        raise StackError(f"A stack already runs in {state}; stop it with `make down`.")
    _end((), state)
    shutil.rmtree(state, ignore_errors=True)
    secrets = StackSecrets.of(state / "secrets.json")
    started: list[Started] = []
    try:
        say("building the demo source machine (a minute or two the first time)")
        machine = build(BUILD / "machine")
        source = state / "source"
        source.mkdir()
        for disk in (machine.system, machine.data):
            subprocess.run(["cp", "--sparse=always", "--reflink=auto", disk, source / disk.name], check=True)

        say("starting the local cloud")
        endpoint, oss_endpoint = start_cloud(state, started)
        prepare_network(ecs_client(endpoint, access_key(state)))
        prepare_bucket(oss_endpoint, access_key(state))
        say("starting the agent beside the source's disks")
        agent, fingerprint = start_agent(
            state, secrets, started, {"system": machine.system.name, "data": machine.data.name}
        )
        say("starting Airflow")
        url = start_airflow(state, secrets, started, manifests or REPO / "manifests", free_port(port))
        stack = Stack(state, url, endpoint, oss_endpoint, agent, fingerprint, tuple(started))
        _set_connections(stack)
    except BaseException:
        _end(started, state)
        raise
    raw = asdict(stack)
    del raw["state"]
    _file(state).write_text(json.dumps(raw))
    return stack


def _end(processes: Iterable[Started], state: Path) -> list[str]:
    killed = stop(processes, leftovers_under=state)
    # A cloud that was killed leaves its volume mounted.
    Volume(state / CLOUD).close()
    return killed


def access_key(state: Path) -> tuple[str, str]:
    """Id and secret that the stack's cloud made for itself."""
    made = json.loads((state / CLOUD / "access-key.json").read_text())
    return made["access_key_id"], made["access_key_secret"]


def ecs_client(endpoint: str, key: tuple[str, str]) -> Client:
    """The real ECS SDK, pointed at a local cloud."""
    return Client(
        Config(
            access_key_id=key[0],
            access_key_secret=key[1],
            region_id="cn-local",
            endpoint=endpoint,
            protocol="http",
            no_proxy="127.0.0.1",
        )
    )


def _file(state: Path) -> Path:
    return state / "stack.json"


def _set_connections(stack: Stack) -> None:
    """What a user would enter once under Admin > Connections."""
    api = stack.airflow()
    api.set_connection({"connection_id": "wavelift_agent", **agent_connection(stack)})
    api.set_connection(
        {
            "connection_id": "wavelift_cloud",
            "conn_type": "wavelift_alibaba",
            "login": stack.access_key[0],
            "password": stack.access_key[1],
            "extra": json.dumps(cloud_extra(stack)),
        }
    )
    api.set_connection(
        {
            "connection_id": "wavelift_oss",
            "conn_type": "wavelift_oss",
            "login": stack.access_key[0],
            "password": stack.access_key[1],
            "extra": json.dumps(oss_extra(stack)),
        }
    )
    api.set_connection(
        {
            "connection_id": "wavelift_offline",
            "conn_type": "wavelift_offline",
            "extra": json.dumps({"master_secret": stack.secrets.archive_secret}),
        }
    )


def agent_connection(stack: Stack) -> dict[str, object]:
    """The fields of the agent's connection."""
    address = urlsplit(stack.agent_url)
    return {
        "conn_type": "wavelift_agent",
        "host": address.hostname,
        "port": address.port,
        "password": stack.secrets.agent_token,
        "extra": json.dumps({"fingerprint": stack.agent_fingerprint}),
    }


def cloud_extra(stack: Stack) -> dict[str, object]:
    """The extra fields of the cloud connection."""
    return {
        "endpoint": stack.cloud_endpoint,
        "protocol": "http",
        "region": "cn-local",
        "zone": "cn-local-a",
        "poll_seconds": 2,
        "gateway_image": "host-linux",
        "gateway_instance_type": "ecs.g7.large",
        "gateway_security_group": "sg-local-default",
        "gateway_secret": stack.secrets.gateway_secret,
        "gateway_command": f"env LIBGUESTFS_CACHEDIR={BUILD} {wavelift()[0]}",
    }


def oss_extra(stack: Stack) -> dict[str, object]:
    """The extra fields of the connection to the bucket. Agent and gateway get keys of the role, for an archive each."""
    return {
        "region": "cn-local",
        "endpoint": f"http://{stack.oss_endpoint}",
        "bucket": BUCKET,
        "prefix": "waves",
        "role_arn": f"acs:ram::{ACCOUNT}:role/archives",
        "sts_endpoint": f"http://{stack.cloud_endpoint}",
        "master_secret": stack.secrets.archive_secret,
    }
