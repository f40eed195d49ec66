"""borg and restic, as their users run them for a disk image."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks import measure
from benchmarks.cloud import BUCKET, KEY, SECRET, Cloud
from benchmarks.measure import MIB, Run
from wavelift.localcloud.entities import REGION

CHUNK = MIB


class Store:
    """A repository in a folder; each `store` adds the source as it is now."""

    def __init__(self, folder: Path, env: Mapping[str, str], repository: str = "") -> None:
        folder.mkdir()
        self.folder = folder
        self._repository = repository or str(folder / "repository")
        self._env = {**os.environ, **env, "HOME": str(folder)}
        self._count = 0

    def _run(self, *words: str | Path, cwd: Path | None = None) -> Run:
        before = self.size()
        run = measure.command(*words, cwd=cwd, env=self._env)
        return replace(run, stored=self.size() - before)

    def size(self) -> int:
        """Bytes of its files."""
        return sum(path.stat().st_size for path in Path(self._repository).rglob("*") if path.is_file())

    def _require_same(self, source: Path, *words: str) -> None:
        """What the command writes to stdout is the source. Raises RuntimeError."""
        process = subprocess.Popen(words, stdout=subprocess.PIPE, env=self._env)
        assert process.stdout is not None
        with source.open("rb") as file:
            same = True
            while same and (piece := file.read(MIB)):
                same = process.stdout.read(len(piece)) == piece
            same = same and process.stdout.read() == b""
        process.stdout.close()
        if process.wait() or not same:
            raise RuntimeError(f"{words} does not give the source back")


class Borg(Store):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder, {"BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"})
        self._run("borg", "init", "-e", "none", self._repository)

    def store(self, source: Path) -> Run:
        self._count += 1
        options = ["-C", "zstd,1", "--sparse", "--chunker-params", f"fixed,{CHUNK}"]
        name = f"{self._repository}::{self._count}"
        return self._run("borg", "create", *options, name, source.name, cwd=source.parent)

    def check(self, source: Path) -> None:
        name = f"{self._repository}::{self._count}"
        self._require_same(source, "borg", "extract", "--stdout", name, source.name)


class Restic(Store):
    def __init__(self, folder: Path, env: Mapping[str, str] | None = None, repository: str = "") -> None:
        super().__init__(folder, {"RESTIC_PASSWORD": "benchmark", **(env or {})}, repository)
        self._run(*self._restic("init", "--repository-version", "2"))

    def _restic(self, *words: str | Path) -> list[str | Path]:
        return ["restic", "-q", "-r", self._repository, *words]

    def store(self, source: Path) -> Run:
        return self._run(*self._restic("backup", "--compression", "auto", source))

    def check(self, source: Path) -> None:
        self._require_same(source, *map(str, self._restic("dump", "latest", source)))


class ResticToBucket(Restic):
    """By S3 over TLS: without it restic signs what it sends in chunks, which OSS does not take."""

    def __init__(self, folder: Path, cloud: Cloud) -> None:
        self._cloud = cloud
        keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        super().__init__(folder, keys, f"s3:{cloud.tls_endpoint}/{BUCKET}/restic")

    def _restic(self, *words: str | Path) -> list[str | Path]:
        options = ["-o", "s3.bucket-lookup=path", "-o", f"s3.region={REGION}"]
        return super()._restic(*options, "--cacert", self._cloud.authority, *words)

    def size(self) -> int:
        return self._cloud.size()
