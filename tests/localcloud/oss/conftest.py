"""An object store on free ports, with and without TLS, and what the SDKs need to reach it."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import oss2
import pytest
from botocore.config import Config

from wavelift.localcloud.accounts import Accounts, Credential
from wavelift.localcloud.faults.calls import Faults
from wavelift.localcloud.listener import Listener, Tls
from wavelift.localcloud.oss import certificate
from wavelift.localcloud.oss.errors import OssError
from wavelift.localcloud.oss.model.store import ObjectStore
from wavelift.localcloud.oss.service import ObjectService

KEY, SECRET, REGION = "LOCALTEST", "a secret for tests", "cn-local"
NUMBERS = itertools.count()


@dataclass(frozen=True)
class Oss:
    store: ObjectStore
    accounts: Accounts
    endpoint: str
    tls_endpoint: str
    ca: Path

    @property
    def url(self) -> str:
        return f"http://{self.endpoint}"

    def bucket(self, name: str, auth: Any = None, **options: Any) -> oss2.Bucket:
        auth = auth or oss2.AuthV4(KEY, SECRET)
        return oss2.Bucket(auth, self.url, name, region=REGION, **options)

    def s3(self, credential: Credential | None = None, **options: Any) -> Any:
        """boto3 as the documentation of OSS says it is to be used, but by path because there is no DNS here."""
        found = credential or Credential(KEY, SECRET)
        settings = {
            "s3": {"addressing_style": "path"},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            "retries": {"total_max_attempts": 1},
            "proxies": {},
            **options.pop("config", {}),
        }
        return boto3.client(
            "s3",
            aws_access_key_id=found.key,
            aws_secret_access_key=found.secret,
            aws_session_token=found.token or None,
            region_name=REGION,
            config=Config(**settings),
            **{"endpoint_url": self.url, **options},
        )


def empty(store: ObjectStore, bucket: str) -> None:
    while found := store.objects.list(bucket, "", "", "", 1000).items:
        store.objects.delete(bucket, [each.key for each in found])
    for upload in store.uploads.list(bucket, "", "", "", "", 1000).items:
        store.uploads.abort(bucket, upload.key, upload.id)


@pytest.fixture(scope="session")
def oss(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oss]:
    folder = tmp_path_factory.mktemp("oss")
    certificate.ensure(folder, REGION, "127.0.0.1")
    store, accounts = ObjectStore(folder / "oss"), Accounts({KEY: SECRET}, b"seal")
    service = ObjectService(store, accounts, REGION, Faults())
    tls = Tls(folder / certificate.CERTIFICATE, folder / certificate.KEY)
    plain, secure = Listener("oss", ("127.0.0.1", 0)), Listener("oss-tls", ("127.0.0.1", 0), tls)
    plain.start(service)
    secure.start(service)
    yield Oss(store, accounts, plain.endpoint, secure.endpoint, folder / certificate.AUTHORITY)
    plain.stop()
    secure.stop()
    service.close()
    store.close()


@pytest.fixture
def name(oss: Oss) -> Iterator[str]:
    """A bucket that is there."""
    bucket = f"bucket-{next(NUMBERS)}"
    oss.store.buckets.put(bucket, None, "Standard")
    yield bucket
    try:
        empty(oss.store, bucket)
        oss.store.buckets.delete(bucket)
    except OssError as error:  # the test deleted it
        assert error.code == "NoSuchBucket"


@pytest.fixture(params=["V1", "V4"])
def bucket(oss: Oss, name: str, request: pytest.FixtureRequest) -> oss2.Bucket:
    """oss2 on it, by either signature."""
    return oss.bucket(name, {"V1": oss2.Auth, "V4": oss2.AuthV4}[request.param](KEY, SECRET))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObjectStore]:
    """The model alone, with a bucket named "here"."""
    made = ObjectStore(tmp_path / "oss")
    made.buckets.put("here", None, "Standard")
    yield made
    made.close()
