"""How many Describe requests a second the local cloud answers, with many disks and snapshots in its store.

python -m benchmarks.localcloud_requests --resources 1000 --requests 400

Every request is signed (ACS3-HMAC-SHA256) and comes over HTTP, one after the other on one kept connection: first by the
Python SDK as it is, then by a client that does nothing but sign, so that the cloud's own share shows.
"""

import argparse
import hashlib
import hmac
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from alibabacloud_ecs20140526 import models
from alibabacloud_ecs20140526.client import Client
from alibabacloud_tea_openapi.models import Config

KEY, SECRET, REGION = "BENCH", "a secret", "cn-local"
ROUNDS = 5
SERVER = """
import sys, pathlib, time
from wavelift.localcloud.entities import Disk, Snapshot, new_id
from wavelift.localcloud.server import LocalCloud
from wavelift.localcloud.states import DiskStatus, SnapshotStatus
state, keys, number = pathlib.Path(sys.argv[1]), {sys.argv[2]: sys.argv[3]}, int(sys.argv[4])
with LocalCloud(state, keys) as cloud:
    with cloud.cloud.store.transaction() as tx:
        for place in range(number):
            tags = {"number": str(place), "wave": str(place % 10)}
            disk = Disk(id=new_id("d-"), created=time.time(), zone="cn-local-a", size=20, category="cloud_essd",
                        performance_level="PL1", status=DiskStatus.AVAILABLE, tags=tags, name=f"disk-{place}")
            tx.put(disk)
            tx.put(Snapshot(id=new_id("s-"), created=time.time(), disk=disk.id, disk_size=20, disk_type="data",
                            status=SnapshotStatus.ACCOMPLISHED, copied=True, tags=tags, name=f"snapshot-{place}"))
            last = disk.id
    print(cloud.endpoint, last, flush=True)
    sys.stdin.read()
"""


def by_sdk(endpoint: str) -> Callable[[str, dict[str, object]], int]:
    client = Client(
        Config(
            access_key_id=KEY,
            access_key_secret=SECRET,
            endpoint=endpoint,
            protocol="http",
            region_id=REGION,
            no_proxy="127.0.0.1",
        )
    )

    def ask(action: str, fields: dict[str, object]) -> int:
        name = "_".join(part.lower() for part in ("Describe", action.removeprefix("Describe")))
        request = getattr(models, f"{action}Request")(region_id=REGION)
        for field, value in fields.items():
            if field == "tag":
                key, text = str(value).split("=")
                value = [getattr(models, f"{action}RequestTag")(key=key, value=text)]
            setattr(request, field, value)
        return int(getattr(client, name)(request).body.total_count)

    return ask


def by_hand(endpoint: str) -> Callable[[str, dict[str, object]], int]:
    connection = http.client.HTTPConnection(endpoint)

    def ask(action: str, fields: dict[str, object]) -> int:
        query = {"RegionId": REGION}
        for field, value in fields.items():
            if field == "tag":
                query["Tag.1.Key"], query["Tag.1.Value"] = str(value).split("=")
            else:
                query["".join(part.capitalize() for part in field.split("_"))] = str(value)
        line = "&".join(f"{quote(key, safe='~')}={quote(text, safe='~')}" for key, text in sorted(query.items()))
        connection.request("POST", f"/?{line}", headers=signed(endpoint, action, line))
        reply = connection.getresponse()
        body = json.loads(reply.read())
        if reply.status != 200:
            raise RuntimeError(body)
        return int(body["TotalCount"])

    return ask


def signed(endpoint: str, action: str, line: str) -> dict[str, str]:
    empty = hashlib.sha256(b"").hexdigest()
    headers = {
        "host": endpoint,
        "x-acs-action": action,
        "x-acs-content-sha256": empty,
        "x-acs-date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "x-acs-signature-nonce": uuid.uuid4().hex,
        "x-acs-version": "2014-05-26",
    }
    names = ";".join(sorted(headers))
    shown = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = f"POST\n/\n{line}\n{shown}\n{names}\n{empty}"
    text = f"ACS3-HMAC-SHA256\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()
    return {
        **headers,
        "Authorization": f"ACS3-HMAC-SHA256 Credential={KEY},SignedHeaders={names},Signature={signature}",
    }


def measure(ask: Callable[[], int], expected: int, requests: int) -> list[float]:
    times = []
    for _ in range(requests):
        began = time.perf_counter()
        found = ask()
        times.append(time.perf_counter() - began)
        if found != expected:
            raise RuntimeError(f"{found} were found, not {expected}")
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resources", type=int, default=1000, help="so many disks and so many snapshots")
    parser.add_argument("--requests", type=int, default=400, help=f"of each kind in each of {ROUNDS} rounds")
    args = parser.parse_args()
    number = args.resources
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        command = [sys.executable, "-c", SERVER, str(Path(folder) / "state"), KEY, SECRET, str(number)]
        server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            assert server.stdout is not None
            endpoint, disk = server.stdout.readline().split()
            cases: list[tuple[str, str, dict[str, object], int]] = [
                ("disk by id", "DescribeDisks", {"disk_ids": json.dumps([disk])}, 1),
                ("page of 100 disks", "DescribeDisks", {"page_size": 100}, number),
                ("disks by tag", "DescribeDisks", {"tag": "number=7"}, 1),
                ("page of 100 snapshots", "DescribeSnapshots", {"page_size": 100}, number),
                ("snapshots by tag", "DescribeSnapshots", {"tag": "number=7"}, 1),
            ]
            clients = {"SDK": by_sdk(endpoint), "by hand": by_hand(endpoint)}
            times: dict[tuple[str, str], list[list[float]]] = {}
            for _ in range(ROUNDS):
                for about, action, fields, expected in cases:
                    for client, ask in clients.items():
                        taken = measure(lambda a=action, f=fields, k=ask: k(a, f), expected, args.requests)
                        times.setdefault((about, client), []).append(taken)
        finally:
            server.communicate("")
    print(f"{number} disks, {number} snapshots; {ROUNDS} rounds of {args.requests} requests")
    print(f"{'':24}{'client':10}{'requests/s':>12}{'median ms':>12}{'p99 ms':>10}")
    for (about, client), rounds in times.items():
        rate = statistics.median(len(taken) / sum(taken) for taken in rounds)
        median = statistics.median(statistics.median(taken) for taken in rounds)
        tail = statistics.median(statistics.quantiles(taken, n=100)[98] for taken in rounds)
        print(f"{about:24}{client:10}{rate:12.0f}{median * 1000:12.2f}{tail * 1000:10.2f}")


if __name__ == "__main__":
    main()
