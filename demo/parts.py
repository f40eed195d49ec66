"""The parts of a stack, each started as a process of its own, and what they need before."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import oss2
from alibabacloud_ecs20140526 import models
from alibabacloud_ecs20140526.client import Client

from demo.processes import StackError, Started, first_json_line, log_tail, start
from demo.secrets import StackSecrets

REPO = Path(__file__).resolve().parent.parent
SECURITY_GROUP = "wavelift-demo"
BUCKET = "wavelift-demo"
SERVED_PORT = 8080
CLOUD = "cloud"  # the local cloud's state, in the stack's
_AIRFLOW_PARTS = ("scheduler", "dag-processor", "triggerer")


def start_cloud(state: Path, started: list[Started]) -> tuple[str, str]:
    """Where it answers: ECS and STS, and OSS."""
    process = start(
        "localcloud",
        [
            *wavelift("localcloud"),
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


def prepare_network(cloud: Client) -> None:
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


def prepare_bucket(endpoint: str, key: tuple[str, str]) -> None:
    """For the routes over OSS."""
    auth = oss2.AuthV4(*key)
    oss2.Bucket(auth, f"http://{endpoint}", BUCKET, region="cn-local", is_path_style=True).create_bucket()


def start_agent(state: Path, secrets: StackSecrets, started: list[Started], disks: dict[str, str]) -> tuple[str, str]:
    """URL, and the fingerprint of the certificate it made for itself."""
    token = state / "agent.token"
    token.touch(mode=0o600)
    token.write_text(secrets.agent_token)
    process = start(
        "agent",
        [
            *wavelift("agent"),
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


def start_airflow(state: Path, secrets: StackSecrets, started: list[Started], manifests: Path, port: int) -> str:
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


def wavelift(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("wavelift")), *arguments]


def _environment() -> dict[str, str]:
    """Ours without Airflow's variables, which would override the repository's own configuration."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return {**env, "PYTHONUNBUFFERED": "1"}


def free_port(wanted: int) -> int:
    """The wanted port where it is free, else any free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
