"""Archives in a bucket of OSS or of an S3-compatible store, as a backend.

Who fills or reads one archive gets the key of a session that may put, get and list under its prefix, and delete
nothing but the locks there. Source of the policies: the lists of actions, resources and condition keys of RAM for OSS,
and of IAM for S3.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import boto3
from botocore import exceptions
from botocore.config import Config

from storage_backends.alibaba.credentials import AssumedRole, provider_of
from storage_backends.archives.backend import ArchiveBackend
from storage_backends.archives.oss_settings import OssSettings
from storage_backends.errors import Denied, Unavailable
from wavelift.archive.descriptor import BucketArchive
from wavelift.archive.layout import LOCKS
from wavelift.stores.base import Store
from wavelift.stores.oss import OssStore
from wavelift.stores.patience import Patience
from wavelift.stores.s3 import S3Store

_SESSION_SECONDS = 3600
_PATIENCE_SECONDS = 60.0


class Key(NamedTuple):
    id: str
    secret: str
    token: str


class BucketPlace:
    carrier: Literal["bucket"] = "bucket"

    def __init__(self, settings: OssSettings) -> None:
        self._settings = settings

    def store(self) -> Store:
        patience = Patience(_PATIENCE_SECONDS)
        root = self._settings.root
        return OssStore(root, patience) if self._settings.service == "oss" else S3Store(root, patience)

    def descriptor(self, prefix: str, key: str, *, writes: bool) -> BucketArchive:
        settings = self._settings
        whole = settings.root.key(prefix)
        lent = self._lent(whole, writes)
        return BucketArchive(
            service=settings.service,
            endpoint=settings.endpoint,
            bucket=settings.bucket,
            prefix=whole,
            region=settings.region,
            by_path=settings.by_path,
            access_key_id=lent.id,
            access_key_secret=lent.secret,
            token=lent.token,
            key=key,
        )

    def _lent(self, prefix: str, writes: bool) -> Key:
        """Raises BackendError."""
        settings, access = self._settings, self._settings.access
        if not access.role_arn:
            return Key(access.access_key_id, access.access_key_secret, access.security_token)
        if settings.service == "s3":
            return _s3_session(settings, s3_policy(settings.bucket, prefix, writes=writes))
        own = provider_of(replace(access, role_arn=""), settings.region)
        policy = oss_policy(settings.bucket, prefix, writes=writes)
        given = AssumedRole(own, access, settings.region, json.dumps(policy)).get_credentials()
        return Key(given.get_access_key_id(), given.get_access_key_secret(), given.get_security_token())


def open_oss(settings: OssSettings, master: bytes | None) -> ArchiveBackend:
    return ArchiveBackend(BucketPlace(settings), master)


def oss_policy(bucket: str, prefix: str, *, writes: bool) -> dict[str, Any]:
    """What a session may do with one archive, in the language of RAM."""
    return _policy("1", "oss", f"acs:oss:*:*:{bucket}", "ListObjects", "oss:Prefix", prefix, writes)


def s3_policy(bucket: str, prefix: str, *, writes: bool) -> dict[str, Any]:
    """The same, in the language of IAM."""
    return _policy("2012-10-17", "s3", f"arn:aws:s3:::{bucket}", "ListBucket", "s3:prefix", prefix, writes)


def _policy(
    version: str, service: str, bucket: str, listing: str, condition: str, prefix: str, writes: bool
) -> dict[str, Any]:
    objects = [f"{service}:GetObject", *([f"{service}:PutObject"] if writes else [])]
    # Who is at work says so, and takes it back.
    unlock = {"Effect": "Allow", "Action": [f"{service}:DeleteObject"], "Resource": [f"{bucket}/{prefix}/{LOCKS}*"]}
    return {
        "Version": version,
        "Statement": [
            {"Effect": "Allow", "Action": objects, "Resource": [f"{bucket}/{prefix}/*"]},
            {
                "Effect": "Allow",
                "Action": [f"{service}:{listing}"],
                "Resource": [bucket],
                "Condition": {"StringLike": {condition: [f"{prefix}/*"]}},
            },
            *([unlock] if writes else []),
        ],
    }


def _s3_session(settings: OssSettings, policy: dict[str, Any]) -> Key:
    access = settings.access
    client = boto3.client(
        "sts",
        aws_access_key_id=access.access_key_id,
        aws_secret_access_key=access.access_key_secret,
        aws_session_token=access.security_token or None,
        region_name=settings.region,
        endpoint_url=settings.sts_url,
        verify=access.ca_file or None,
        config=Config(retries={"mode": "standard", "total_max_attempts": 5}, proxies={}),
    )
    try:
        given = client.assume_role(
            RoleArn=access.role_arn,
            RoleSessionName="wavelift",
            DurationSeconds=_SESSION_SECONDS,
            Policy=json.dumps(policy),
        )["Credentials"]
    except exceptions.ClientError as error:
        raise Denied(
            f"{settings.sts_url} does not let {access.access_key_id} take the role {access.role_arn}: {error}.",
            "Let the role trust this user, or correct role_arn in the Airflow connection.",
        ) from error
    except exceptions.BotoCoreError as error:
        raise Unavailable(
            f"{settings.sts_url} cannot be reached: {error}.", "Check sts_endpoint of the Airflow connection."
        ) from error
    return Key(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
