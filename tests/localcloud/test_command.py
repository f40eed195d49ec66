import argparse
import importlib
import json
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from alibabacloud_ecs20140526 import models
from alibabacloud_ecs20140526.client import Client

from wavelift.localcloud.command import add_arguments, kept_key


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["--state", "x", *arguments])


def test_defaults() -> None:
    args = parse()
    assert args.listen == args.oss_listen == ("127.0.0.1", 0)
    assert (args.access_key, args.profile) == ([], "fast")
    assert not args.allow_host_instances and args.image_from_data_snapshot == "allowed"


def test_keys_repeat_and_secrets_may_hold_colons() -> None:
    assert parse("--access-key", "a:b:c", "--access-key", "d:e").access_key == [("a", "b:c"), ("d", "e")]


def test_what_zones_lack_repeats() -> None:
    withheld = parse("--withhold", "cn-local-a/cloud_essd", "--withhold", "cn-local-b/ecs.g7.large").withhold
    assert withheld == [("cn-local-a", "cloud_essd"), ("cn-local-b", "ecs.g7.large")]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--listen", "nowhere"],
        ["--oss-listen", "h:-1"],
        ["--listen", "h:99999"],
        ["--access-key", "id-only"],
        ["--profile", "slow"],
        ["--withhold", "cn-local-a"],
        ["--withhold", "cn-local-z/cloud_essd"],
        ["--withhold", "cn-local-a/cloud_essdd"],
    ],
)
def test_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        parse(*arguments)


def test_a_kept_key_stays(tmp_path: Path) -> None:
    key = kept_key(tmp_path)
    assert kept_key(tmp_path) == key
    assert (tmp_path / "access-key.json").stat().st_mode & 0o077 == 0


class Started:
    """The command as a process: what it prints for programs, and what it prints for people."""

    def __init__(self, state: Path, *arguments: str) -> None:
        self._errors = (state.parent / "stderr").open("w+")
        command = [sys.executable, "-m", "wavelift.localcloud.command", "--state", str(state), *arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._errors, text=True)
        assert self._process.stdout is not None
        self.ready = json.loads(self._process.stdout.readline() or "{}")

    def end(self) -> tuple[int, str]:
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return status, self.hint()

    def hint(self) -> str:
        return Path(self._errors.name).read_text()

    def __enter__(self) -> "Started":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.end()
        self._errors.close()


def shown(hint: str, call: str) -> Any:
    """What the call in the hint makes when somebody types it."""
    found = re.search(rf"^  {re.escape(call)}\((?s:.*?)\)$", hint, re.MULTILINE)
    names = re.search(r"^  (key, secret = .*)$", hint, re.MULTILINE)
    assert found and names
    known: dict[str, Any] = {"json": json}
    for module in ("alibabacloud_tea_openapi.models", "oss2", "boto3", "botocore.config"):
        importlib.import_module(module)
        known[module.partition(".")[0]] = sys.modules[module.partition(".")[0]]
    exec(names[1], known)
    return eval(found[0].strip(), known)


def test_given_only_a_state_folder_it_says_how_to_use_it(tmp_path: Path) -> None:
    with Started(tmp_path / "state") as cloud:
        ready, hint = cloud.ready, cloud.hint()
        config = shown(hint, "alibabacloud_tea_openapi.models.Config")
        regions = Client(config).describe_regions(models.DescribeRegionsRequest()).body.regions.region
        assert [region.region_id for region in regions] == [ready["region"]]
        assert (config.endpoint, config.access_key_id) == (ready["endpoint"], ready["access_key_id"])

        bucket = shown(hint, "oss2.Bucket")
        bucket.create_bucket()
        bucket.put_object("a", b"by oss2")
        s3 = shown(hint, "boto3.client")
        assert s3.get_object(Bucket="my-bucket", Key="a")["Body"].read() == b"by oss2"
        trusted = ssl.create_default_context(cafile=ready["oss_ca"])
        secure = httpx.get(f"https://{ready['oss_tls_endpoint']}/my-bucket/a", verify=trusted, trust_env=False)
        assert secure.status_code == 403
        assert httpx.get(f"http://{ready['admin_endpoint']}/rules", trust_env=False).status_code == 401
        assert cloud.end()[0] == 0


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("kept", [[], ["lock", "state.sqlite"]])
def test_a_state_folder_is_closed_to_others(tmp_path: Path, kept: list[str]) -> None:
    """Who reads the seal in it can make keys."""
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o755)
    for name in kept:
        (state / name).touch()
    with Started(state) as cloud:
        assert cloud.ready and mode(state) == 0o700


def test_a_folder_with_other_things_stays_open(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    (shared / "letter").touch()
    with Started(shared) as cloud:
        assert cloud.ready == {}
        status, words = cloud.end()
    assert (status, mode(shared), [each.name for each in shared.iterdir()]) == (1, 0o755, ["letter"])
    assert words.startswith(f"wavelift localcloud: {shared} is open to others and holds other things; name a folder")


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives folders away")
def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    os.chown(foreign, 65534, 65534)
    with Started(foreign) as cloud:
        status, words = cloud.end()
    assert (status, list(foreign.iterdir())) == (1, [])
    assert words.startswith(f"wavelift localcloud: {foreign} belongs to somebody else; name a folder")


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with Started(tmp_path / "state", "--oss-listen", address) as cloud:
            assert cloud.ready == {}
            status, words = cloud.end()
        assert (status, words.startswith("wavelift localcloud: ")) == (1, True)
    assert not (tmp_path / "state" / "state.sqlite").exists()
