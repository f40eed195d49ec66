"""The backends that come with this package: what their connections ask for. Entry points lead here."""

from __future__ import annotations

from pathlib import Path

from storage_backends.archives.sealing import master_of
from storage_backends.base import BootableBackend, StorageBackend
from storage_backends.fields import Fields
from storage_backends.plugin import BackendType, Field, Form

_SEALING = (
    Field(
        "master_secret",
        "Master key",
        "64 hex digits; made by: openssl rand -hex 32. Each archive is sealed with a key of its own made of this one, "
        "and agents and gateways only get the keys of the archives they work on. Without it nothing can be restored: "
        "keep a copy elsewhere.",
        secret=True,
    ),
    Field("plain", "Not encrypted", "Whoever can read the store can read the disks.", kind="boolean"),
)
_CA_FILE = Field(
    "ca_file", "CA bundle", "A PEM file on the machines Airflow runs on, for endpoints of a CA of one's own."
)
_SESSION = Field("security_token", "Session token", "Of a temporary access key.", secret=True)


def _alibaba(fields: Fields, region: str, zone: str) -> BootableBackend:
    from storage_backends.alibaba.backend import AlibabaBackend
    from storage_backends.alibaba.settings import AlibabaSettings

    return AlibabaBackend(
        AlibabaSettings.from_connection(
            connection_id=fields.connection_id,
            login=fields.login,
            password=fields.password,
            extra=fields.extra,
            region=region or fields.text("region"),
            zone=zone or fields.text("zone"),
        )
    )


def _oss(fields: Fields, region: str, zone: str) -> StorageBackend:
    from storage_backends.archives.oss import open_oss
    from storage_backends.archives.oss_settings import OssSettings

    return open_oss(OssSettings.from_fields(fields, region), master_of(fields))


def _offline(fields: Fields, region: str, zone: str) -> StorageBackend:
    from storage_backends.archives.offline import open_offline

    folders = fields.needed("folders (extra)", fields.text("folders")).split(",")
    return open_offline([Path(folder.strip()) for folder in folders], master_of(fields))


def _memory(fields: Fields, region: str, zone: str) -> StorageBackend:
    from storage_backends.archives.memory import MemoryBackend

    return MemoryBackend(fields.connection_id, master_of(fields))


ALIBABA = BackendType(
    Form(
        "Wavelift: Alibaba Cloud",
        (
            Field("region", "Region", "For the Test button; migrations take it from their manifest.", "cn-hangzhou"),
            Field("zone", "Zone", "For the Test button; migrations take it from their manifest.", "cn-hangzhou-i"),
            Field("endpoint", "Endpoint", "Host of the ECS API, for dedicated clouds.", "ecs.cn-hangzhou.aliyuncs.com"),
            Field("protocol", "Protocol", "http is for a local cloud.", choices=("https", "http")),
            _CA_FILE,
            _SESSION,
            Field("instance_role", "RAM role of this instance", "Instead of an access key, where Airflow runs on ECS."),
            Field(
                "role_arn", "Role to assume", "Taken on by the key before anything else.", "acs:ram::1234:role/wavelift"
            ),
            Field("sts_endpoint", "STS endpoint", "Host; needed for a role beside an endpoint."),
            Field("gateway_image", "Gateway: image", "Id of the image that gateway instances are made of.", "m-..."),
            Field(
                "gateway_instance_type",
                "Gateway: instance types",
                "The first that is large enough is taken.",
                "ecs.g7.large, ecs.g7.2xlarge",
            ),
            Field("gateway_security_group", "Gateway: security group", "Id or name.", "sg-..."),
            Field(
                "gateway_secret",
                "Gateway: secret",
                "32 characters or more; tokens and certificates of gateways are made of it.",
                secret=True,
            ),
            Field("gateway_command", "Gateway: command", "What starts the service there.", "wavelift"),
            Field("gateway_port", "Gateway: port", "", "8443", kind="number"),
            Field(
                "donor_image",
                "Donor: image",
                "Where data disks may become no images: what donors are made of.",
                "m-...",
            ),
            Field(
                "image_strategy",
                "Image strategy",
                "Left out, what the account may do is found out.",
                choices=("device mapping", "donor"),
            ),
            Field("poll_seconds", "Seconds between two looks", "", "10", kind="number"),
        ),
        login="Access key id",
        password="Access key secret",
    ),
    _alibaba,
)
OSS = BackendType(
    Form(
        "Wavelift: OSS or S3 bucket",
        (
            Field("service", "Service", "oss unless said otherwise.", choices=("oss", "s3")),
            Field("region", "Region", "", "cn-hangzhou"),
            Field(
                "endpoint",
                "Endpoint",
                "URL; the region's public one if left out.",
                "https://oss-cn-hangzhou.aliyuncs.com",
            ),
            Field("bucket", "Bucket"),
            Field("prefix", "Prefix", "All keys begin with it.", "wavelift"),
            Field(
                "path_style", "Bucket in the path", "Found out by the endpoint if left out.", choices=("true", "false")
            ),
            _CA_FILE,
            _SESSION,
            Field(
                "role_arn",
                "Role for agents and gateways",
                "They get keys of an hour, limited to one archive each.",
                "acs:ram::1234:role/wavelift-archives",
            ),
            Field(
                "sts_endpoint",
                "STS endpoint",
                "URL; needed beside an endpoint.",
                "https://sts.cn-hangzhou.aliyuncs.com",
            ),
            Field(
                "allow_static_keys",
                "Hand out this access key",
                "Where there is no role: agents and gateways get the key above, with all its rights.",
                kind="boolean",
            ),
            *_SEALING,
        ),
        login="Access key id",
        password="Access key secret",
    ),
    _oss,
)
OFFLINE = BackendType(
    Form(
        "Wavelift: offline disks",
        (
            Field(
                "folders",
                "Folders",
                "Where the disks of one set are mounted, with commas between them; one plain folder will do.",
                "/mnt/disk1,/mnt/disk2",
            ),
            *_SEALING,
        ),
    ),
    _offline,
)
MEMORY = BackendType(Form("Wavelift: memory of one machine", _SEALING), _memory)
