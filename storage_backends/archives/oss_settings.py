"""What the Airflow connection tells the oss backend, checked once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from storage_backends.alibaba.settings import Access
from storage_backends.errors import InvalidRequest
from storage_backends.fields import Fields
from wavelift.archive.opening import addressed_by_path
from wavelift.stores.bucket import Bucket

_ROLES = {"oss": r"acs:ram::[0-9]+:role/[A-Za-z0-9.-]{1,64}", "s3": r"arn:[a-z-]+:iam::[^:]*:role/.+"}
_PREFIX = re.compile(r"([A-Za-z0-9][A-Za-z0-9._=-]{0,199}(/[A-Za-z0-9][A-Za-z0-9._=-]{0,199})*)?")


@dataclass(frozen=True)
class OssSettings:
    """`access` is whose key the control half uses. What agents and gateways get is that of the role it names, limited
    to one archive; without a role its own key, where the connection allows that."""

    service: Literal["oss", "s3"]
    endpoint: str
    region: str
    bucket: str
    prefix: str
    by_path: bool
    access: Access
    sts_url: str
    allow_static_keys: bool

    @classmethod
    def from_fields(cls, fields: Fields, region: str) -> OssSettings:
        """Raises InvalidRequest naming the connection and the field that is missing or wrong."""
        service: Literal["oss", "s3"] = "s3" if fields.text("service").lower() == "s3" else "oss"
        if fields.text("service").lower() not in ("", "oss", "s3"):
            raise fields.wrong("service", fields.text("service"), "neither oss nor s3")
        region = fields.needed("region (extra)", fields.text("region") or region)
        usual = f"https://oss-{region}.aliyuncs.com" if service == "oss" else f"https://s3.{region}.amazonaws.com"
        endpoint = _url(fields, "endpoint") or usual
        role = fields.text("role_arn")
        if role and not re.fullmatch(_ROLES[service], role):
            raise fields.wrong("role_arn", role, f"no ARN of a role of {service}")
        sts_url = _url(fields, "sts_endpoint")
        if role and not sts_url:
            if endpoint != usual:
                fields.needed("sts_endpoint (extra), which role_arn needs beside an endpoint", "")
            host = f"sts.{region}.aliyuncs.com" if service == "oss" else f"sts.{region}.amazonaws.com"
            sts_url = f"https://{host}"
        if not role and not fields.flag("allow_static_keys"):
            raise InvalidRequest(
                f"Airflow connection {fields.connection_id} has no role_arn, so that agents would get its own key.",
                "Fill in the ARN of a role that may read and write the bucket, or switch allow_static_keys on.",
            )
        prefix = fields.text("prefix").strip("/")
        if not _PREFIX.fullmatch(prefix):
            raise fields.wrong("prefix", prefix, "not made of letters, digits, '.', '_', '=', '-' and '/'")
        style = fields.text("path_style").lower()
        if style not in ("", "true", "false"):
            raise fields.wrong("path_style", style, "neither true nor false")
        sts = urlsplit(sts_url)
        access = Access(
            access_key_id=fields.needed("access key id (login)", fields.login),
            access_key_secret=fields.needed("access key secret (password)", fields.password),
            security_token=fields.text("security_token"),
            role_arn=role,
            sts_endpoint=sts.netloc,
            protocol=sts.scheme or "https",
            ca_file=fields.ca_file(),
        )
        return cls(
            service=service,
            endpoint=endpoint,
            region=region,
            bucket=fields.needed("bucket (extra)", fields.text("bucket")),
            prefix=prefix,
            by_path=style == "true" if style else addressed_by_path(fields.text("endpoint"), service),
            access=access,
            sts_url=sts_url,
            allow_static_keys=fields.flag("allow_static_keys"),
        )

    @property
    def root(self) -> Bucket:
        """All of it, by the connection's own key."""
        return Bucket(
            self.endpoint,
            self.bucket,
            self.prefix,
            self.region,
            self.access.access_key_id,
            self.access.access_key_secret,
            self.access.security_token,
            self.by_path,
            self.access.ca_file,
        )


def _url(fields: Fields, name: str) -> str:
    """Of a host alone, that of HTTPS."""
    value = fields.text(name).rstrip("/")
    if value and "://" not in value:
        value = f"https://{value}"
    if value and (urlsplit(value).scheme not in ("https", "http") or not urlsplit(value).netloc):
        raise fields.wrong(name, value, "no URL that begins with https://")
    return value
