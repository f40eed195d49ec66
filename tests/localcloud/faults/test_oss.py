"""What the SDKs of the object store see of each fault."""

import time
from pathlib import Path
from typing import Any

import boto3
import fastcrc
import oss2
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ResponseStreamingError

from tests.localcloud.conftest import KEY, REGION, SECRET
from tests.localcloud.faults.conftest import Order
from wavelift.localcloud.faults.book import Counter
from wavelift.localcloud.faults.calls import Faults
from wavelift.localcloud.server import LocalCloud

NAME = "faulty"
DATA = bytes(range(256)) * 1024
CRC = "x-oss-hash-crc64ecma"


def open_bucket(endpoint: str, verify: str | bool = True) -> oss2.Bucket:
    session = oss2.Session()
    session.session.verify = verify
    session.session.trust_env = False
    return oss2.Bucket(oss2.AuthV4(KEY, SECRET), endpoint, NAME, region=REGION, session=session)


@pytest.fixture
def bucket(server: LocalCloud) -> oss2.Bucket:
    made = open_bucket(f"http://{server.oss_endpoint}")
    made.create_bucket()
    made.put_object("data", DATA)
    return made


@pytest.fixture
def s3(server: LocalCloud) -> Any:
    config = Config(
        s3={"addressing_style": "path"},
        retries={"total_max_attempts": 1},
        proxies={},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.client(
        "s3",
        endpoint_url=f"http://{server.oss_endpoint}",
        region_name=REGION,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        config=config,
    )


@pytest.mark.parametrize(
    ("kind", "fault", "code", "status"),
    [
        ("throttle", {}, "TotalQpsLimitExceeded", 503),
        ("throttle", {"code": "DownloadTrafficRateLimitExceeded"}, "DownloadTrafficRateLimitExceeded", 503),
        ("internal-error", {}, "InternalError", 500),
        ("unavailable", {}, "ServiceUnavailable", 503),
        ("forbidden", {}, "AccessDenied", 403),
        ("error", {"code": "NoSuchKey", "status": 404}, "NoSuchKey", 404),
    ],
)
def test_an_error_is_the_services_own(
    bucket: oss2.Bucket, s3: Any, faults: Faults, order: Order, kind: str, fault: Any, code: str, status: int
) -> None:
    rule = order(kind, fault=fault, service="oss", action="GetObject", resource=f"{NAME}/data", times=2)
    with pytest.raises(oss2.exceptions.ServerError) as caught:
        bucket.get_object("data")
    assert (caught.value.code, caught.value.status) == (code, status)
    with pytest.raises(ClientError) as refused:
        s3.get_object(Bucket=NAME, Key="data")
    assert refused.value.response["Error"]["Code"] == code
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert bucket.get_object("data").read() == DATA
    first, _ = faults.log(rule)
    assert (first.action, first.resource, first.request_id) == ("GetObject", f"{NAME}/data", caught.value.request_id)


def test_a_proxys_page_is_no_answer_of_the_service(bucket: oss2.Bucket, order: Order) -> None:
    order("bad-gateway", times=1)
    with pytest.raises(oss2.exceptions.ServerError) as caught:
        bucket.get_object("data")
    assert caught.value.status == 502 and "502 Bad Gateway" in str(caught.value.body)


@pytest.mark.parametrize(("kind", "done"), [("reset", False), ("drop-reply", True)])
def test_without_a_reply_it_may_be_done_or_not(
    bucket: oss2.Bucket, s3: Any, faults: Faults, order: Order, kind: str, done: bool
) -> None:
    rule = order(kind, action="PutObject", times=2)
    for number, (put, error) in enumerate(
        (
            (lambda: bucket.put_object("lost-0", DATA), oss2.exceptions.RequestError),
            (lambda: s3.put_object(Bucket=NAME, Key="lost-1", Body=DATA), ConnectionClosedError),
        )
    ):
        with pytest.raises(error):
            put()
        assert bucket.object_exists(f"lost-{number}") is done
        bucket.delete_object(f"lost-{number}")
    assert faults.counter(rule) == Counter(2, 2)


def test_a_checksum_may_lie(bucket: oss2.Bucket, order: Order, tmp_path: Path) -> None:
    order("wrong-crc", times=3, resource=f"{NAME}/*")
    with pytest.raises(oss2.exceptions.InconsistentError):
        bucket.put_object("lied-about", DATA)
    head = bucket.head_object("data")
    assert int(head.headers[CRC]) == fastcrc.crc64.xz(DATA) ^ 1
    with pytest.raises(oss2.exceptions.InconsistentError):
        bucket.get_object_to_file("data", str(tmp_path / "data"))
    assert bucket.get_object("data").read() == bucket.get_object("lied-about").read() == DATA


@pytest.mark.parametrize(("offset", "turned"), [(None, len(DATA) // 2), (5, 5), (10**9, len(DATA) - 1)])
def test_a_byte_may_turn_on_its_way(
    bucket: oss2.Bucket, s3: Any, faults: Faults, order: Order, offset: int | None, turned: int
) -> None:
    rule = order("corrupt-body", fault={"offset": offset}, resource=f"{NAME}/data", times=1)
    answer = s3.get_object(Bucket=NAME, Key="data")
    got = answer["Body"].read()
    assert [n for n in range(len(DATA)) if got[n] != DATA[n]] == [turned] and len(got) == len(DATA)
    assert int(answer["ResponseMetadata"]["HTTPHeaders"][CRC]) == fastcrc.crc64.xz(DATA)
    assert bucket.get_object("data").read() == DATA and faults.counter(rule).injected == 1


def test_oss2_notices_a_byte_that_turned(bucket: oss2.Bucket, order: Order, tmp_path: Path) -> None:
    """Only where it compares: a plain read() does not."""
    order("corrupt-body")
    got = bucket.get_object("data")
    assert got.read() != DATA and got.client_crc != got.server_crc
    with pytest.raises(oss2.exceptions.InconsistentError):
        bucket.get_object_to_file("data", str(tmp_path / "data"))


def test_a_body_may_end_early(bucket: oss2.Bucket, s3: Any, faults: Faults, order: Order) -> None:
    rule = order("truncated-body", fault={"after_bytes": 1000}, action="Get*", times=1)
    body = s3.get_object(Bucket=NAME, Key="data")["Body"]
    assert body.read(1000) == DATA[:1000]
    with pytest.raises(ResponseStreamingError):
        body.read()
    assert s3.get_object(Bucket=NAME, Key="data")["Body"].read() == DATA
    assert faults.counter(rule).injected == 1


def test_a_body_may_be_slow(bucket: oss2.Bucket, order: Order) -> None:
    order("slow-body", fault={"bytes_per_second": len(DATA)}, times=1)
    begun = time.monotonic()
    assert bucket.get_object("data", byte_range=(0, len(DATA) // 4 - 1)).read() == DATA[: len(DATA) // 4]
    assert time.monotonic() - begun >= 0.2


def test_what_has_no_body_is_not_counted(bucket: oss2.Bucket, faults: Faults, order: Order) -> None:
    rule = order("corrupt-body")
    bucket.put_object("empty", b"")
    bucket.get_object("empty").read()
    bucket.head_object("data")
    with pytest.raises(oss2.exceptions.NoSuchKey):
        bucket.get_object("none")
    assert faults.counter(rule) == Counter(0, 0)


def test_a_client_that_goes_away_leaves_a_service_that_answers(bucket: oss2.Bucket, order: Order) -> None:
    order("slow-body", fault={"bytes_per_second": 1000}, times=1)
    got = bucket.get_object("data")
    got.read(10)
    got.resp.response.close()
    assert bucket.get_object("data").read() == DATA


def test_faults_come_over_tls_too(server: LocalCloud, bucket: oss2.Bucket, faults: Faults, order: Order) -> None:
    order("reset", times=1)
    over = open_bucket(f"https://{server.oss_tls_endpoint}", str(server.oss_ca))
    with pytest.raises(oss2.exceptions.RequestError):
        over.head_object("data")
    assert over.head_object("data").content_length == len(DATA)
    assert len(faults.log()) == 1
