"""The object store of a state folder, for whoever is in this process: HTTP, and images that come from and go to it."""

from collections.abc import Callable
from pathlib import Path

from wavelift.localcloud.oss.errors import OssError
from wavelift.localcloud.oss.model.blobs import Blobs, Reader
from wavelift.localcloud.oss.model.buckets import Buckets
from wavelift.localcloud.oss.model.index import Index
from wavelift.localcloud.oss.model.objects import Objects
from wavelift.localcloud.oss.model.uploads import Uploads
from wavelift.localcloud.oss.model.values import Meta, Object

READ_SIZE = 1 << 20


class ObjectStore:
    """Files in `folder`/data, everything else in `folder`/index.sqlite. Any thread may call anything.

    What fails is an `OssError` with the code that OSS has for it: NoSuchBucket, NoSuchKey, InvalidObjectName.
    """

    def __init__(self, folder: Path) -> None:
        """One process at a time: what an earlier one left half done is removed."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.blobs = Blobs(folder / "data")
        self._index = Index(folder / "index.sqlite", self.blobs)
        with self._index.view() as tx:
            self.blobs.clear(tx.known_blobs())
        self.buckets = Buckets(self._index)
        self.objects = Objects(self._index, self.blobs)
        self.uploads = Uploads(self._index, self.blobs)

    def has(self, bucket: str, key: str) -> bool:
        try:
            self.objects.get(bucket, key)
        except OssError as error:
            if error.code not in {"NoSuchBucket", "NoSuchKey"}:
                raise
            return False
        return True

    def open_object(self, bucket: str, key: str) -> Reader:
        """To be closed. `reader.size`, `reader.read(offset, length)`, `reader.copy_to(path)`; what it reads is the
        object as it is now, also when it is replaced or deleted meanwhile."""
        return self.objects.open(bucket, key)[1]

    def put_file(self, bucket: str, key: str, path: Path, check: Callable[[], None] = lambda: None) -> Object:
        """An object with the content of a file, as if it had been uploaded; of any size. `check` may raise."""
        with self.blobs.writing() as writer:
            with path.open("rb") as file:
                while data := file.read(READ_SIZE):
                    check()
                    writer.write(data)
            staged = writer.finish()
        with self.blobs.using(staged):
            return self.objects.put(bucket, key, staged, Meta({"content-type": "application/octet-stream"}))

    def close(self) -> None:
        self._index.close()
        self.blobs.close()
