"""Everything a migration needs, on this machine: local cloud, source with its agent, Airflow. Start, find, stop."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import oss2
from alibabacloud_ecs20140526 import models
from alibabacloud_ecs20140526.client import Client
from alibabacloud_tea_openapi.utils_models import Config

from demo.airflow_api import AirflowApi
from demo.machine import build
from demo.processes import StackError, Started, first_json_line, log_tail, start, stop
from demo.secrets import StackSecrets
from wavelift.localcloud.accounts import ACCOUNT
from wavelift.localcloud.volume import Volume

REPO = Path(__file__).resolve().parent.parent
HOME = REPO / ".wavelift"
BUILD = HOME / "build"
DEFAULT_STATE = HOME / "stack"
SECURITY_GROUP = "wavelift-demo"
BUCKET = "wavelift-demo"
SERVED_PORT = 8080
CLOUD = "cloud"  # the local cloud's state, in the stack's
_AIRFLOW_PARTS = ("scheduler", "dag-processor", "triggerer")

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
        endpoint, oss_endpoint = _start_cloud(state, started)
        _prepare_network(ecs_client(endpoint, access_key(state)))
        _prepare_bucket(oss_endpoint, access_key(state))
        say("starting the agent beside the source's disks")
        agent, fingerprint = _start_agent(
            state, secrets, started, {"system": machine.system.name, "data": machine.data.name}
        )
        say("starting Airflow")
        url = _start_airflow(state, secrets, started, manifests or REPO / "manifests", _port(port))
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


def _start_cloud(state: Path, started: list[Started]) -> tuple[str, str]:
    """Where it answers: ECS and STS, and OSS."""
    process = start(
        "localcloud",
        [
            *_wavelift("localcloud"),
            *("--state", str(state / CLOUD), "--listen", "127.0.0.1:0", "--profile", "fast"),
            "--allow-host-instances",
        ],
        _environment(),
        state / "log" / "localcloud.log",
        state,
    )
    started.append(process)
    line = first_json_line(process)
    return str(line["endpoint"]).removeprefix("http://"), str(line["oss_endpoint"]).removeprefix("http://")


def _prepare_network(cloud: Client) -> None:
    """What a customer has before a migration: a security group that opens the ports of the service."""
    vpcs = cloud.describe_vpcs(models.DescribeVpcsRequest(region_id="cn-local")).body.vpcs.vpc
    group = cloud.create_security_group(
        models.CreateSecurityGroupRequest(
            region_id="cn-local", vpc_id=vpcs[0].vpc_id, security_group_name=SECURITY_GROUP
        )
    ).body.security_group_id
    cloud.authorize_security_group(
        models.AuthorizeSecurityGroupRequest(
            region_id="cn-local",
            security_group_id=group,
            ip_protocol="tcp",
            port_range=f"{SERVED_PORT}/{SERVED_PORT}",
            source_cidr_ip="0.0.0.0/0",
        )
    )


def _prepare_bucket(endpoint: str, key: tuple[str, str]) -> None:
    """For the routes over OSS."""
    auth = oss2.AuthV4(*key)
    oss2.Bucket(auth, f"http://{endpoint}", BUCKET, region="cn-local", is_path_style=True).create_bucket()


def _start_agent(state: Path, secrets: StackSecrets, started: list[Started], disks: dict[str, str]) -> tuple[str, str]:
    """URL, and the fingerprint of the certificate it made for itself."""
    token = state / "agent.token"
    token.touch(mode=0o600)
    token.write_text(secrets.agent_token)
    process = start(
        "agent",
        [
            *_wavelift("agent"),
            *("--listen", "127.0.0.1:0", "--state", str(state / "agent"), "--token-file", str(token)),
            *(part for name, file in disks.items() for part in ("--disk", f"{name}={state / 'source' / file}")),
        ],
        _environment(),
        state / "log" / "agent.log",
        state,
    )
    started.append(process)
    line = first_json_line(process)
    return str(line["url"]), str(line["fingerprint"])


def _start_airflow(state: Path, secrets: StackSecrets, started: list[Started], manifests: Path, port: int) -> str:
    url = f"http://127.0.0.1:{port}"
    home = state / "airflow"
    home.mkdir()
    passwords = home / "passwords.json"
    passwords.touch(mode=0o600)
    passwords.write_text(json.dumps({"admin": secrets.airflow_password}))
    env = {
        **_environment(),
        "AIRFLOW_HOME": str(REPO),
        "AIRFLOW_CONFIG": str(REPO / "airflow.cfg"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(home / "logs" / "dag_processor"),
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.jwt_secret,
        "AIRFLOW__API__SECRET_KEY": secrets.api_secret_key,
        "AIRFLOW__CORE__FERNET_KEY": secrets.fernet_key,
        "AIRFLOW__WAVELIFT__MANIFESTS_DIR": str(manifests),
        "AIRFLOW__WAVELIFT__EVIDENCE_DIR": str(state / "evidence"),
    }
    log = state / "log"
    airflow = str(Path(sys.executable).with_name("airflow"))
    with (log / "airflow-migrate.log").open("wb") as output:
        migrated = subprocess.run([airflow, "db", "migrate"], env=env, stdout=output, stderr=output, cwd=state)
    if migrated.returncode:
        reason = log_tail(log / "airflow-migrate.log")
        raise StackError(f"Airflow's database could not be made; {log}/airflow-migrate.log ends with:\n{reason}")
    api = start("airflow api-server", [airflow, "api-server"], env, log / "airflow-api-server.log", state)
    started.append(api)
    # The scheduler ends when a lock outlasts SQLite's five seconds. The API server must not wait longer: while it
    # waits it cannot finish the request that holds the lock (docs/decisions/0006).
    env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] += "?timeout=60"
    for part in _AIRFLOW_PARTS:
        started.append(start(f"airflow {part}", [airflow, part], env, log / f"airflow-{part}.log", state))
    _wait_healthy(url, api)
    return url


def _wait_healthy(url: str, api: Started, seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    parts: dict[str, str] = {}
    while time.monotonic() < deadline and api.alive():
        try:
            answer = httpx.get(f"{url}/api/v2/monitor/health", timeout=5.0, trust_env=False)
            parts = {name: str(part.get("status")) for name, part in answer.json().items()}
        except (httpx.HTTPError, ValueError):
            parts = {}
        wanted = ("metadatabase", "scheduler", "triggerer", "dag_processor")
        if all(parts.get(name) == "healthy" for name in wanted):
            return
        time.sleep(0.5)
    raise StackError(
        f"Airflow is not healthy ({parts or 'no answer'}); {api.log} ends with:\n{log_tail(Path(api.log))}"
    )


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
        "gateway_command": f"env LIBGUESTFS_CACHEDIR={BUILD} {_wavelift()[0]}",
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


def _wavelift(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("wavelift")), *arguments]


def _environment() -> dict[str, str]:
    """Ours without Airflow's variables, which would override the repository's own configuration."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return {**env, "PYTHONUNBUFFERED": "1"}


def _port(wanted: int) -> int:
    """The wanted port where it is free, else any free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
