import json
import time
from pathlib import Path
from typing import Any

import pytest
from alibabacloud_ecs20140526 import models
from aliyunsdkcore.acs_exception.exceptions import ServerException
from aliyunsdkcore.auth.credentials import StsTokenCredential
from aliyunsdkcore.client import AcsClient
from aliyunsdkcore.request import CommonRequest

from tests.localcloud.conftest import KEY, SECRET, Ecs
from tests.localcloud.test_signatures import fields, get, refusal, signed
from wavelift.localcloud.accounts import ACCOUNT, Accounts, BadToken, ExpiredToken, ForeignToken, UnknownKey
from wavelift.localcloud.model.context import Options
from wavelift.localcloud.server import LocalCloud

ROLE = f"acs:ram::{ACCOUNT}:role/migration"


class Sts:
    """The older SDK, on the temporary key if there is one."""

    def __init__(self, endpoint: str, credentials: dict[str, str] | None = None) -> None:
        self.endpoint = endpoint
        if credentials is None:
            self.client = AcsClient(KEY, SECRET, "cn-local")
        else:
            names = ("AccessKeyId", "AccessKeySecret", "SecurityToken")
            temporary = StsTokenCredential(*(credentials[name] for name in names))
            self.client = AcsClient(region_id="cn-local", credential=temporary)

    def call(self, action: str, version: str = "2015-04-01", **parameters: Any) -> dict[str, Any]:
        request = CommonRequest()
        request.set_accept_format("json")
        request.set_domain(self.endpoint)
        request.set_protocol_type("http")
        request.set_version(version)
        request.set_action_name(action)
        request.set_method("POST")
        for name, value in parameters.items():
            request.add_query_param(name, value)
        answer: dict[str, Any] = json.loads(self.client.do_action_with_exception(request))
        return answer

    def assume(self, policy: Any = None, **parameters: Any) -> dict[str, Any]:
        limits = {} if policy is None else {"Policy": policy if isinstance(policy, str) else json.dumps(policy)}
        return self.call("AssumeRole", **{"RoleArn": ROLE, "RoleSessionName": "alice"} | limits | parameters)

    def refused(self, action: str, **parameters: Any) -> tuple[int, str]:
        with pytest.raises(ServerException) as caught:
            self.assume(**parameters) if action == "AssumeRole" else self.call(action, **parameters)
        return caught.value.get_http_status(), caught.value.get_error_code()


def policy(*statements: tuple[str, Any, Any]) -> dict[str, Any]:
    listed = [{"Effect": effect, "Action": action, "Resource": resource} for effect, action, resource in statements]
    return {"Version": "1", "Statement": listed}


@pytest.fixture
def sts(server: LocalCloud) -> Sts:
    return Sts(server.endpoint)


def temporary(ecs: Ecs, answer: dict[str, Any]) -> Ecs:
    key = answer["Credentials"]
    return Ecs(ecs.endpoint, key["AccessKeyId"], key["AccessKeySecret"], key["SecurityToken"])


def test_a_role_is_assumed_and_used_in_both_kinds_of_requests(sts: Sts, ecs: Ecs) -> None:
    answer = sts.assume(DurationSeconds=900)
    key = answer["Credentials"]
    assert key["AccessKeyId"].startswith("STS.")
    assert answer["AssumedRoleUser"]["Arn"] == f"{ROLE}/alice"
    ends = time.mktime(time.strptime(key["Expiration"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
    assert 890 < ends - time.time() < 910
    assert temporary(ecs, answer).call("describe_regions")["Regions"]["Region"]
    assert Sts(sts.endpoint, key).call("DescribeRegions", "2014-05-26")["Regions"]["Region"]


def test_who_am_i(sts: Sts) -> None:
    me = sts.call("GetCallerIdentity")
    assert (me["IdentityType"], me["AccountId"], me["Arn"]) == (
        "RAMUser",
        ACCOUNT,
        f"acs:ram::{ACCOUNT}:user/{KEY}",
    )
    assert me["UserId"] == me["PrincipalId"] != ACCOUNT
    answer = sts.assume()
    role = Sts(sts.endpoint, answer["Credentials"]).call("GetCallerIdentity")
    assert (role["IdentityType"], role["Arn"]) == (
        "AssumedRoleUser",
        f"acs:ram::{ACCOUNT}:assumed-role/migration/alice",
    )
    assert role["PrincipalId"] == answer["AssumedRoleUser"]["AssumedRoleId"] == f"{role['RoleId']}:alice"


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"DurationSeconds": 899}, "InvalidParameter.DurationSeconds"),
        ({"DurationSeconds": 43201}, "InvalidParameter.DurationSeconds"),
        ({"DurationSeconds": "long"}, "InvalidParameter.DurationSeconds"),
        ({"RoleArn": "acs:ram::1:user/me"}, "InvalidParameter.RoleArn"),
        ({"RoleSessionName": "a"}, "InvalidParameter.RoleSessionName"),
        ({"RoleSessionName": "a b"}, "InvalidParameter.RoleSessionName"),
        ({"policy": "{"}, "InvalidParameter.PolicyGrammar"),
        ({"policy": {"Version": "1", "Statement": []}}, "InvalidParameter.PolicyGrammar"),
        ({"policy": policy(("Allow", "*", "x" * 2048))}, "InvalidParameter.PolicySize"),
        ({"RoleArn": ""}, "MissingParameter"),
        ({"RoleSessionName": ""}, "MissingParameter"),
    ],
)
def test_refused(sts: Sts, parameters: dict[str, Any], code: str) -> None:
    assert sts.refused("AssumeRole", **parameters) == (400, code)


def test_each_service_has_its_own_actions(sts: Sts) -> None:
    assert sts.refused("DescribeRegions") == (404, "InvalidAction.NotFound")
    assert sts.refused("GetCallerIdentity", version="2014-05-26") == (404, "InvalidAction.NotFound")


def test_a_policy_limits_the_session(sts: Sts, ecs: Ecs) -> None:
    disk = ecs.new_disk()
    allowed = policy(
        ("Allow", "ecs:Describe*", "*"), ("Allow", "ecs:DeleteDisk", "acs:ecs:*:*:disk/d-other"), ("Deny", "*", "*/i-1")
    )
    limited = temporary(ecs, sts.assume(allowed))
    assert limited.disk(disk)["DiskId"] == disk
    with limited.refused("Forbidden.RAM", 403):
        limited.call("delete_disk", disk_id=disk)
    with limited.refused("Forbidden.RAM", 403):
        limited.call("create_disk", size=5, zone_id="cn-local-a")
    with limited.refused("Forbidden.RAM", 403):
        limited.call("stop_instance", instance_id="i-1")
    own = temporary(ecs, sts.assume(policy(("Allow", "ecs:DeleteDisk", f"acs:ecs:cn-local:{ACCOUNT}:disk/{disk}"))))
    with own.refused("Forbidden.RAM", 403):
        own.call("describe_disks")
    own.call("delete_disk", disk_id=disk)


def test_what_is_made_needs_the_right_to_all_of_its_kind(sts: Sts, ecs: Ecs) -> None:
    maker = temporary(ecs, sts.assume(policy(("Allow", "ecs:*", "acs:ecs:*:*:disk/*"))))
    disk = maker.new_disk()
    maker.call("delete_disk", disk_id=disk)
    with maker.refused("Forbidden.RAM", 403):
        maker.call("create_security_group")


def test_a_parameter_that_the_action_does_not_know_gives_no_right(sts: Sts, ecs: Ecs) -> None:
    own = ecs.new_disk()
    key = sts.assume(policy(("Allow", "ecs:*", f"acs:ecs:*:*:disk/{own}")))["Credentials"]
    limited = Sts(sts.endpoint, key)
    new = {"ZoneId": "cn-local-a", "Size": 5, "DiskCategory": "cloud_essd"}
    for action, parameters in (
        ("DescribeDisks", {"DiskId": own}),
        ("CreateDisk", {**new, "DiskId.1": own}),
        ("CreateDisk", {**new, "DiskIds": json.dumps([own])}),
    ):
        refusal = limited.refused(action, version="2014-05-26", RegionId="cn-local", **parameters)
        assert refusal == (403, "Forbidden.RAM"), (action, parameters)
    shown = temporary(ecs, {"Credentials": key}).disk(own)
    assert shown["DiskId"] == own


def test_a_deny_holds_however_the_resource_is_named(sts: Sts, ecs: Ecs) -> None:
    disk, snapshot = "acs:ecs:*:*:disk/d-1", "acs:ecs:*:*:snapshot/s-1"
    statements = ("Allow", "*", "*"), ("Deny", "*", [disk, snapshot])
    limited = temporary(ecs, sts.assume(policy(*statements)))
    data = models.RunInstancesRequestDataDisk(snapshot_id="s-1")
    mapping = models.CreateImageRequestDiskDeviceMapping(snapshot_id="s-1")
    for action, named in (
        ("modify_disk_attribute", {"disk_ids": ["d-2", "d-1"], "description": "mine"}),
        ("tag_resources", {"resource_type": "disk", "resource_id": ["d-1"], "tags": {"a": "b"}}),
        ("list_tag_resources", {"resource_type": "disk", "resource_id": ["d-1"]}),
        ("describe_disks", {"disk_ids": '["d-2", "d-1"]'}),
        ("run_instances", {"image_id": "host-linux", "instance_type": "ecs.c7.large", "data_disk": [data]}),
        ("create_image", {"disk_device_mapping": [mapping]}),
    ):
        with limited.refused("Forbidden.RAM", 403):
            limited.call(action, **named)
    assert limited.call("describe_disks")["Disks"] is not None


def test_what_has_no_prefix_is_typed_by_its_parameter(sts: Sts, ecs: Ecs) -> None:
    statements = ("Allow", "*", "*"), ("Deny", "*", "acs:ecs:*:*:image/host-linux")
    limited = temporary(ecs, sts.assume(policy(*statements)))
    for action, named in (
        ("describe_images", {"image_id": "m-1,host-linux"}),
        ("run_instances", {"image_id": "host-linux", "instance_type": "ecs.c7.large"}),
    ):
        with limited.refused("Forbidden.RAM", 403):
            limited.call(action, **named)


def test_what_is_made_of_something_needs_both_rights(sts: Sts, ecs: Ecs) -> None:
    limited = temporary(ecs, sts.assume(policy(("Allow", "ecs:*", "acs:ecs:*:*:snapshot/*"))))
    with limited.refused("Forbidden.RAM", 403):
        limited.call("create_disk", zone_id="cn-local-a", snapshot_id="s-1")


def test_a_limited_session_cannot_widen_itself(sts: Sts) -> None:
    limited = Sts(sts.endpoint, sts.assume(policy(("Allow", "ecs:*", "*")))["Credentials"])
    assert limited.refused("AssumeRole") == (403, "NoPermission")
    assert limited.call("GetCallerIdentity")["IdentityType"] == "AssumedRoleUser"


def test_tokens_that_are_not_good(sts: Sts, ecs: Ecs, server: LocalCloud) -> None:
    key, other = sts.assume()["Credentials"], sts.assume()["Credentials"]

    def refused(token: str | None, key_id: str = key["AccessKeyId"], secret: str = key["AccessKeySecret"]) -> str:
        said = fields(AccessKeyId=key_id, SecurityToken=token)
        status, code = refusal(get(ecs, signed(said, secret=secret)))
        assert status == 400
        newer = Ecs(ecs.endpoint, key_id, secret, token or "")
        with newer.refused(code, 400):
            newer.call("describe_regions")
        return code

    good = key["SecurityToken"]
    assert refused(None) == "MissingSecurityToken"
    assert refused("x" + good) == "InvalidSecurityToken.Malformed"
    assert refused(good[:-1] + ("0" if good[-1] != "0" else "1")) == "InvalidSecurityToken.Malformed"
    assert refused(other["SecurityToken"]) == "InvalidSecurityToken.MismatchWithAccessKey"
    assert refused(good, KEY, SECRET) == "InvalidSecurityToken.MismatchWithAccessKey"
    assert refused(good, secret=other["AccessKeySecret"]) == "SignatureDoesNotMatch"
    old = server.accounts.issue(-1)
    assert refused(old.token, old.key, old.secret) == "InvalidSecurityToken.Expired"


def test_the_token_is_part_of_what_is_signed(sts: Sts, ecs: Ecs) -> None:
    key = sts.assume()["Credentials"]
    query = signed(fields(AccessKeyId=key["AccessKeyId"]), secret=key["AccessKeySecret"])
    assert refusal(get(ecs, query | {"SecurityToken": key["SecurityToken"]})) == (400, "SignatureDoesNotMatch")


def test_a_temporary_key_outlives_a_restart(tmp_path: Path) -> None:
    with LocalCloud(tmp_path, {KEY: SECRET}, Options()) as first:
        key = Sts(first.endpoint).assume()["Credentials"]
    with LocalCloud(tmp_path, {KEY: SECRET}, Options()) as second:
        assert Sts(second.endpoint, key).call("GetCallerIdentity")["IdentityType"] == "AssumedRoleUser"


def test_accounts_of_another_cloud_are_unknown() -> None:
    here, there = Accounts({KEY: SECRET}, b"a" * 32), Accounts({}, b"b" * 32)
    issued = here.issue(60, {"Version": "1", "Statement": []}, ROLE, "alice")
    assert here.find(issued.key, issued.token) == issued
    with pytest.raises(BadToken):
        there.find(issued.key, issued.token)
    with pytest.raises(ForeignToken):
        here.find(here.issue(60).key, issued.token)
    with pytest.raises(UnknownKey):
        there.find(KEY)
    old = here.issue(-1)
    with pytest.raises(ExpiredToken):
        here.find(old.key, old.token)
