"""`wavelift localcloud`: ECS, STS and OSS of one's own, on this machine."""

import argparse
import json
import logging
import os
import secrets
import signal
import sys
from pathlib import Path

from wavelift.localcloud.entities import INSTANCE_TYPES, REGION, ZONES
from wavelift.localcloud.faults.admin import TOKEN_FILE
from wavelift.localcloud.faults.loading import RulesError, load
from wavelift.localcloud.model import sizes
from wavelift.localcloud.model.cloud import SharedFolder, StateInUse, private
from wavelift.localcloud.model.context import Options
from wavelift.localcloud.server import LocalCloud
from wavelift.localcloud.states import Profile

KEY_FILE = "access-key.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="where everything is kept")
    parser.add_argument(
        "--listen",
        type=_address,
        default=("127.0.0.1", 0),
        metavar="HOST:PORT",
        help="where ECS and STS answer by HTTP; port 0 is a free one; by HTTPS they do on a free port beside "
        "(default: 127.0.0.1:0)",
    )
    parser.add_argument(
        "--oss-listen",
        type=_address,
        default=("127.0.0.1", 0),
        metavar="HOST:PORT",
        help="where OSS answers by HTTP; by HTTPS it does on a free port beside (default: 127.0.0.1:0)",
    )
    parser.add_argument(
        "--access-key",
        type=_access_key,
        action="append",
        default=[],
        metavar="ID:SECRET",
        help="repeatable; without any, a key is made and kept in the state folder",
    )
    parser.add_argument(
        "--profile",
        choices=[profile.value for profile in Profile],
        default=Profile.FAST.value,
        help="how long operations take (default: fast)",
    )
    parser.add_argument(
        "--allow-host-instances",
        action="store_true",
        help="offer the image host-linux, whose user data runs as a script on THIS machine",
    )
    parser.add_argument(
        "--image-from-data-snapshot",
        choices=["allowed", "whitelist"],
        default="allowed",
        help="may a data disk's snapshot become an image's system disk, or does the account lack that right",
    )
    parser.add_argument(
        "--memory",
        type=int,
        default=Options().memory,
        metavar="MIB",
        help="memory that all machines share (default: half of this host's)",
    )
    parser.add_argument(
        "--withhold",
        type=_withheld,
        action="append",
        default=[],
        metavar="ZONE/NAME",
        help="repeatable; a disk category or instance type that this zone does not have",
    )
    parser.add_argument("--faults", type=Path, metavar="FILE", help="YAML with rules for what goes wrong")
    parser.add_argument(
        "--admin-listen",
        type=_address,
        default=("127.0.0.1", 0),
        metavar="HOST:PORT",
        help=f"where rules are set at run time, with the token in STATE/{TOKEN_FILE} (default: 127.0.0.1:0)",
    )


def run(args: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    options = Options(
        profile=Profile(args.profile),
        host_instances=args.allow_host_instances,
        data_snapshot_images=args.image_from_data_snapshot == "allowed",
        memory=args.memory,
        withheld=frozenset(args.withhold),
    )
    # Handlers, not a blocked mask: instances are children of this process and would inherit the mask.
    # A pipe, not an Event: a handler that sets an Event while the main thread enters its wait waits for itself.
    asked, ask = os.pipe()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(ask, b"."))
    try:
        state = private(args.state)
        keys = dict(args.access_key) or kept_key(state)
        faults = load(args.faults) if args.faults else []
        local = LocalCloud(
            state,
            keys,
            options,
            args.listen,
            oss_listen=args.oss_listen,
            admin_listen=args.admin_listen,
            faults=faults,
        )
    except (SharedFolder, StateInUse, OSError, RulesError) as error:
        print(f"wavelift localcloud: {error}", file=sys.stderr)
        return 1
    local.start()
    first = next(iter(keys))
    ready = {
        "endpoint": local.endpoint,
        "tls_endpoint": local.tls_endpoint,
        "oss_endpoint": local.oss_endpoint,
        "oss_tls_endpoint": local.oss_tls_endpoint,
        "oss_ca": str(local.oss_ca),
        "admin_endpoint": local.admin_endpoint,
        "region": REGION,
        "access_key_id": first,
    }
    print(_hint(local, first, state, None if args.access_key else KEY_FILE), file=sys.stderr, flush=True)
    print(json.dumps(ready), flush=True)
    os.read(asked, 1)
    local.stop()
    return 0


def kept_key(state: Path) -> dict[str, str]:
    """The key of this state folder, made the first time."""
    path = state / KEY_FILE
    if not path.exists():
        key = {"access_key_id": f"LOCAL{secrets.token_hex(8)}", "access_key_secret": secrets.token_urlsafe(24)}
        partial = path.with_suffix(".partial")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(key, file)
        partial.rename(path)
    kept = json.loads(path.read_text())
    return {kept["access_key_id"]: kept["access_key_secret"]}


def _hint(local: LocalCloud, key: str, state: Path, key_file: str | None) -> str:
    secret = f'json.load(open("{state / key_file}"))["access_key_secret"]' if key_file else '"..."'
    return f"""The local cloud is ready. Point the SDKs at it, from Python with
  key, secret = "{key}", {secret}
ECS (the same endpoint answers for STS; also https://{local.tls_endpoint} with the authority in {local.oss_ca}):
  alibabacloud_tea_openapi.models.Config(access_key_id=key, access_key_secret=secret,
      endpoint="{local.endpoint}", protocol="http", region_id="{REGION}")
OSS (also https://{local.oss_tls_endpoint} with the authority in {local.oss_ca}):
  oss2.Bucket(oss2.AuthV4(key, secret), "http://{local.oss_endpoint}", "my-bucket", region="{REGION}")
  boto3.client("s3", endpoint_url="http://{local.oss_endpoint}", region_name="{REGION}",
      aws_access_key_id=key, aws_secret_access_key=secret, config=botocore.config.Config(
          s3={{"addressing_style": "path"}},
          request_checksum_calculation="when_required", response_checksum_validation="when_required"))
Fault rules: http://{local.admin_endpoint}/rules with the token in {state / TOKEN_FILE}"""


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def _withheld(text: str) -> tuple[str, str]:
    zone, _, name = text.partition("/")
    if zone not in ZONES or name not in {*sizes.CATEGORIES, *INSTANCE_TYPES}:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not ZONE/NAME with one of {', '.join(ZONES)} and a disk category or instance type"
        )
    return zone, name


def _access_key(text: str) -> tuple[str, str]:
    identifier, colon, secret = text.partition(":")
    if not colon or not identifier or not secret:
        raise argparse.ArgumentTypeError("an access key is written ID:SECRET")
    return identifier, secret


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="wavelift localcloud", description=__doc__)
    add_arguments(parser)
    sys.exit(run(parser.parse_args()))
