"""What the local cloud's object store does in a second: one connection, requests by hand, no SDK in the way.

python -m benchmarks.oss --gib 5 --requests 2000 --objects 100000
"""

import argparse
import base64
import hashlib
import hmac
import http.client
import os
import subprocess
import sys
import tempfile
import time
from email.utils import formatdate
from pathlib import Path

import psutil

KEY, SECRET = "BENCH", "secret"
BLOCK = 1 << 20
SERVER = """
import sys, pathlib
from wavelift.localcloud.oss.model.values import Meta
from wavelift.localcloud.server import LocalCloud
with LocalCloud(pathlib.Path(sys.argv[1]), {"BENCH": "secret"}) as cloud:
    store = cloud.cloud.objects
    store.buckets.put("bench", None, "Standard")
    with store.blobs.writing() as writer:
        nothing = writer.finish()
    for number in range(int(sys.argv[2])):
        store.objects.put("bench", f"{number % 10}/{number:06}", nothing, Meta())
    print(cloud.oss_endpoint, flush=True)
    sys.stdin.read()
"""


class Line(http.client.HTTPConnection):
    def ask(self, method: str, path: str, length: int = 0, query: str = "") -> http.client.HTTPResponse:
        self.begin(method, path, length, query)
        if length:
            block = os.urandom(min(length, BLOCK))
            for _ in range(length // len(block)):
                self.send(block)
        response = self.getresponse()
        assert response.status in {200, 204}, response.read()
        return response

    def begin(self, method: str, path: str, length: int, query: str) -> None:
        date = formatdate(usegmt=True)
        text = f"{method}\n\n\n{date}\n{path}"
        signature = base64.b64encode(hmac.new(SECRET.encode(), text.encode(), hashlib.sha1).digest()).decode()
        self.putrequest(method, path + query)
        self.putheader("Date", date)
        self.putheader("Authorization", f"OSS {KEY}:{signature}")
        self.putheader("Content-Length", str(length))
        self.endheaders()


def large(line: Line, server: psutil.Process, size: int) -> None:
    line.ask("PUT", "/bench/warm", 8 * BLOCK).read()
    line.ask("GET", "/bench/warm").read()
    before = _peak(server)
    began = time.perf_counter()
    line.ask("PUT", "/bench/large", size).read()
    put = time.perf_counter() - began
    began, received, room = time.perf_counter(), 0, bytearray(BLOCK)
    response = line.ask("GET", "/bench/large")
    while count := response.readinto(room):
        received += count
    get = time.perf_counter() - began
    assert received == size
    print(f"put {size / put / 1e6:.0f} MB/s, get {size / get / 1e6:.0f} MB/s of {size >> 30} GiB")
    print(f"memory at its peak: {before >> 20} MiB before, {_peak(server) >> 20} MiB after")


def small(line: Line, count: int) -> None:
    for method, length in (("PUT", 4096), ("HEAD", 0), ("GET", 0), ("DELETE", 0)):
        took = []
        for number in range(count):
            began = time.perf_counter()
            line.ask(method, f"/bench/small-{number}", length).read()
            took.append(time.perf_counter() - began)
        took.sort()
        rate, median, late = count / sum(took), took[count // 2] * 1e3, took[count * 99 // 100] * 1e3
        print(f"{method} of 4 KiB: {rate:.0f}/s, median {median:.2f} ms, 99% within {late:.2f} ms")


def listing(line: Line) -> None:
    for what, query in (("1,000 of them", "?max-keys=1000&marker=5/05"), ("10 folders", "?delimiter=/&max-keys=1000")):
        took = []
        for _ in range(20):
            began = time.perf_counter()
            line.ask("GET", "/bench/", query=query).read()
            took.append(time.perf_counter() - began)
        print(f"list {what}: {sorted(took)[10] * 1e3:.1f} ms")


def _peak(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=int, default=1)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="on the file system to measure")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        command = [sys.executable, "-c", SERVER, folder, str(args.objects)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None and process.stdout is not None
            host, _, port = process.stdout.readline().strip().partition(":")
            line = Line(host, int(port))
            print(f"{args.objects} objects")
            listing(line)
            small(line, args.requests)
            large(line, psutil.Process(process.pid), args.gib << 30)
            process.stdin.close()


if __name__ == "__main__":
    main()
