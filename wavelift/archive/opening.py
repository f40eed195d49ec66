"""Archives by what names them: a descriptor that a job carries, or a text on the command line.

folder:DIR                        a directory of its own
offline:DIR[,DIR...][:PREFIX]     disks of one set, wherever they are mounted
oss://BUCKET[/PREFIX]             a bucket of Alibaba Cloud OSS; credentials, endpoint and region from the environment:
                                  OSS_ACCESS_KEY_ID, OSS_ACCESS_KEY_SECRET, OSS_SESSION_TOKEN, OSS_REGION, OSS_ENDPOINT
s3://BUCKET[/PREFIX]              a bucket of S3; AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN,
                                  AWS_REGION or AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from wavelift.archive.archive import Archive
from wavelift.archive.descriptor import ArchiveDescriptor, BucketArchive, DisksArchive
from wavelift.archive.errors import ArchiveError, NoArchive, NotSealed
from wavelift.archive.keys import KeyOf, given
from wavelift.stores.base import AlreadyThere, Store
from wavelift.stores.bucket import Bucket
from wavelift.stores.directory import DirectoryStore
from wavelift.stores.disk_label import read_label
from wavelift.stores.offline import OfflineStore
from wavelift.stores.patience import Patience
from wavelift.stores.prefixed import PrefixedStore

FOLDER, OFFLINE, OSS, S3 = "folder:", "offline:", "oss://", "s3://"
SCHEMES = (FOLDER, OFFLINE, OSS, S3)
_BUCKET = {OSS: re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]"), S3: re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")}
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]*(/[A-Za-z0-9][A-Za-z0-9._=-]*)*")


class BadPlace(ArchiveError):
    """A text that names no place of an archive, or one for which something is missing."""

    default_code = "bad_place"


def open_archive(
    descriptor: ArchiveDescriptor | Callable[[], ArchiveDescriptor],
    create: bool = False,
    patience: Patience | None = None,
) -> Archive:
    """The archive of a descriptor; a callable is asked before each call to a bucket, so that renewed credentials are
    used. With `create` it is made where there is none, with the descriptor's key as it is, and with the end of its
    prefix as its id. `patience` is that with a bucket.

    Raises `NoArchive`, `KeyMissing`, `NotSealed`, `ArchiveError`, `StoreError`, OSError.
    """
    ask = descriptor if callable(descriptor) else lambda: descriptor
    return opened(store_of(ask, create, patience), given(ask().key), create, ask().prefix.rpartition("/")[2])


def opened(store: Store, key: KeyOf | None, create: bool, name: str = "") -> Archive:
    """As `Archive.open`, and made with `create` where there is none, by whoever of several comes first; `name` becomes
    its id."""
    try:
        return Archive.open(store, key)
    except NoArchive:
        if not create:
            raise
    with suppress(AlreadyThere):
        return Archive.create(store, key=key, name=name or None)
    return Archive.open(store, key)


def store_of(ask: Callable[[], ArchiveDescriptor], create: bool = False, patience: Patience | None = None) -> Store:
    """Where the archive of a descriptor lies; as `open_archive`. Raises `StoreError`, OSError."""
    about = ask()
    if isinstance(about, DisksArchive):
        return _disks([Path(folder) for folder in about.folders], about.prefix, create)

    def bucket() -> Bucket:
        now = ask()
        assert isinstance(now, BucketArchive)
        return Bucket(
            now.endpoint,
            now.bucket,
            now.prefix,
            now.region,
            now.access_key_id,
            now.access_key_secret,
            now.token,
            now.by_path,
        )

    return _bucket_store(about.service, bucket, patience)


@dataclass(frozen=True)
class Place:
    """Where a text says that an archive lies. `where` is a bucket's name or folders with commas between them;
    `generation` None for the newest."""

    scheme: str
    where: str
    prefix: str
    generation: int | None = None

    @property
    def text(self) -> str:
        """As somebody would write it, wherever they are."""
        if not self.folders:
            return f"{self.scheme}{self.where}/{self.prefix}".rstrip("/")
        folders = ",".join(str(folder.absolute()) for folder in self.folders)
        return f"{self.scheme}{folders}{':' if self.prefix else ''}{self.prefix}"

    @property
    def folders(self) -> Sequence[Path]:
        """None for a bucket."""
        if self.scheme == FOLDER:
            return [Path(self.where)]
        return [Path(part) for part in self.where.split(",")] if self.scheme == OFFLINE else []

    def open(self, key: KeyOf | None) -> Archive:
        """To read from. A folder may be plain where others have a key. Raises as `Archive.open` and `store` do."""
        store = self.store()
        try:
            return Archive.open(store, key)
        except NotSealed:
            if self.scheme != FOLDER:
                raise
            return Archive.open(store, None)

    def store(self, create: bool = False) -> Store:
        """With `create` the folders are made ready. Raises `BadPlace`, `StoreError`, OSError."""
        if self.scheme == FOLDER:
            (folder,) = self.folders
            if create:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return DirectoryStore(folder)
        if self.scheme == OFFLINE:
            return _disks(self.folders, self.prefix, create)
        service: Literal["oss", "s3"] = "oss" if self.scheme == OSS else "s3"
        bucket = _from_environment(service, self.where, self.prefix, os.environ)
        return _bucket_store(service, lambda: bucket)


def parse_place(text: str, *, generation: bool = False) -> Place:
    """With `generation` the text may end with "@" and the number of one. Raises `BadPlace`."""
    number: int | None = None
    rest, at, end = text.rpartition("@")
    if generation and at and end.isdecimal():
        text, number = rest, int(end)
    scheme = next((scheme for scheme in SCHEMES if text.startswith(scheme)), None)
    if scheme is None:
        raise BadPlace(f"{text!r} is no place of an archive.", f"Begin with one of {', '.join(SCHEMES)}.")
    where, prefix = text.removeprefix(scheme), ""
    if scheme in (OSS, S3):
        where, _, prefix = where.partition("/")
        prefix = prefix.rstrip("/")
    elif scheme == OFFLINE:
        front, colon, last = where.rpartition(":")
        if colon and _PREFIX.fullmatch(last):
            where, prefix = front, last
    if not where or "" in where.split(","):
        raise BadPlace(
            f"{text!r} names nothing after {scheme}", f"Write {scheme}{'DIR' if scheme[-1] == ':' else 'B'}."
        )
    if scheme in _BUCKET and not _BUCKET[scheme].fullmatch(where):
        raise BadPlace(f"{where!r} cannot be a bucket's name.", "Use 3 to 63 small letters, digits and '-'.")
    if prefix and not _PREFIX.fullmatch(prefix):
        raise BadPlace(f"{prefix!r} cannot be a prefix of keys.", "Use letters, digits, '.', '_', '=', '-' and '/'.")
    return Place(scheme, where, prefix, number)


def _disks(folders: Sequence[Path], prefix: str, create: bool) -> Store:
    """One folder without a disk's label is a plain directory."""
    if len(folders) == 1 and not create and read_label(folders[0]) is None:
        store: Store = DirectoryStore(folders[0])
    else:
        store = OfflineStore.create(folders) if create else OfflineStore(folders)
    return PrefixedStore(store, prefix) if prefix else store


def _bucket_store(
    service: Literal["oss", "s3"], bucket: Callable[[], Bucket], patience: Patience | None = None
) -> Store:
    # Their SDKs take long to load: who needs none waits for none.
    if service == "oss":
        from wavelift.stores.oss import OssStore

        return OssStore(bucket, patience)
    from wavelift.stores.s3 import S3Store

    return S3Store(bucket, patience)


def _from_environment(service: str, bucket: str, prefix: str, env: Mapping[str, str]) -> Bucket:
    """Raises `BadPlace` naming the variable that is missing."""
    if service == "oss":
        names = ("OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET", "OSS_SESSION_TOKEN")
        region, endpoint = env.get("OSS_REGION", ""), env.get("OSS_ENDPOINT", "")
        wanted, usual = "OSS_REGION", f"https://oss-{region}.aliyuncs.com"
    else:
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        region = env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION", "")
        endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL", "")
        wanted, usual = "AWS_REGION", f"https://s3.{region}.amazonaws.com"
    for name, value in ((names[0], env.get(names[0])), (names[1], env.get(names[1])), (wanted, region)):
        if not value:
            raise BadPlace(
                f"{service}://{bucket} needs {name} in the environment.", f"Set {', '.join(names)}, {wanted}."
            )
    by_path = addressed_by_path(endpoint, service)
    return Bucket(
        endpoint or usual, bucket, prefix, region, env[names[0]], env[names[1]], env.get(names[2], ""), by_path
    )


def addressed_by_path(endpoint: str, service: str) -> bool:
    """Whether the bucket stands in the path of a URL: no name of a host can be put before an address, and stores that
    speak S3 seldom have one for each bucket."""
    if service == "s3":
        return bool(endpoint)
    try:
        ip_address(urlsplit(endpoint).hostname or "")
    except ValueError:
        return False
    return True
