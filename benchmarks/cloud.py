"""The local cloud as a process of its own, with one bucket, for what keeps its bytes in a bucket."""

from __future__ import annotations

from pathlib import Path

import oss2

from benchmarks.services import listening
from wavelift.localcloud.entities import REGION

KEY, SECRET = "BENCHMARK", "the-secret-of-a-benchmark"
BUCKET = "benchmark"


class Cloud:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Cloud:
        words = ["localcloud", "--state", str(self._folder), "--access-key", f"{KEY}:{SECRET}"]
        self._process, said = listening(self._folder.with_suffix(".log"), *words)
        try:
            self.endpoint = f"http://{said['oss_endpoint']}"
            self.tls_endpoint, self.authority = f"https://{said['oss_tls_endpoint']}", Path(said["oss_ca"])
            auth = oss2.AuthV4(KEY, SECRET)
            self._bucket = oss2.Bucket(auth, self.endpoint, BUCKET, region=REGION, is_path_style=True)
            self._bucket.create_bucket()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def sizes(self) -> dict[str, int]:
        """Bytes of all objects, as the cloud lists them."""
        return {entry.key: entry.size for entry in oss2.ObjectIteratorV2(self._bucket)}

    def size(self) -> int:
        """Bytes of the files that hold the objects. Raises RuntimeError where the cloud lists something else."""
        files = sum(path.stat().st_size for path in (self._folder / "oss/data").rglob("*") if path.is_file())
        listed = sum(self.sizes().values())
        if files != listed:
            raise RuntimeError(f"the files of the bucket have {files} bytes, its objects {listed}")
        return files
