"""A request as it came, and what it is about: service, bucket or object."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from wavelift.localcloud.oss.errors import OssError, invalid_argument

S3_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True)
class Request:
    method: str
    host: str
    path: str  # encoded, as it came
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]  # names in lower case, values as Latin-1 so that no byte is lost
    bucket: str
    key: str

    @staticmethod
    def parse(method: str, path: str, query: str, headers: Mapping[str, str]) -> "Request":
        host = headers.get("host", "")
        bucket, key = locate(host, path)
        pairs = tuple(parse_qsl(query, keep_blank_values=True))
        return Request(method, host, path, pairs, headers, bucket, key)

    def header(self, name: str) -> str:
        return self.headers.get(name, "")

    def parameter(self, name: str) -> str | None:
        return next((value for known, value in self.query if known == name), None)

    def text(self, name: str) -> str:
        return self.parameter(name) or ""

    def number(self, name: str, default: int, least: int, most: int) -> int:
        value = self.parameter(name)
        if not value:
            return default
        if not re.fullmatch("[0-9]{1,10}", value) or not least <= int(value) <= most:
            raise invalid_argument(name, value, f"{name} must be a number between {least} and {most}.")
        return int(value)

    @property
    def s3(self) -> bool:
        """Signed as AWS does: then headers are called x-amz-, both ways."""
        return self.header("authorization").startswith("AWS") or bool(
            {"X-Amz-Algorithm", "AWSAccessKeyId"} & {name for name, _ in self.query}
        )

    @property
    def prefix(self) -> str:
        return "x-amz-" if self.s3 else "x-oss-"

    def special(self, name: str) -> str:
        """The header x-oss-`name`, or x-amz-`name`."""
        return self.header(self.prefix + name)


def locate(host: str, path: str) -> tuple[str, str]:
    """Bucket and key, either of which may be empty. `bucket.oss-cn-local.example` and `bucket.127.0.0.1` carry the
    bucket in front; under an address or any other name it is the first part of the path."""
    try:
        decoded = unquote(path, errors="strict")
    except UnicodeDecodeError:
        raise OssError("InvalidObjectName") from None
    name = _without_port(host)
    first, _, rest = name.partition(".")
    if _is_address(rest) or rest == "localhost" or rest.startswith(("oss-", "s3.oss-")):
        return first, decoded[1:]
    bucket, _, key = decoded[1:].partition("/")
    if bucket and name.startswith(("oss-", "s3.oss-")):
        raise OssError("SecondLevelDomainForbidden", BucketName=bucket)
    return bucket, key


def _without_port(host: str) -> str:
    return host if host.endswith("]") else host.rpartition(":")[0] or host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
