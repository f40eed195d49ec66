"""What an order of instances may not ask for."""

from typing import Any

import pytest
from alibabacloud_ecs20140526 import models

ORDER = {
    "image_id": "host-linux",
    "instance_type": "ecs.c7.large",
    "v_switch_id": "vsw-local-a",
    "security_group_id": "sg-local-default",
    "dry_run": True,
}
BOTH = [
    {"instance_charge_type": "PrePaid"},
    {"dedicated_host_id": "dh-1"},
    {"deployment_set_id": "ds-1"},
    {"spot_strategy": "SpotAsPriceGo"},
    {"ram_role_name": "backup"},
    {"tenancy": "host"},
    {"http_tokens": "required"},
    {"http_endpoint": "disabled"},
    {"internet_charge_type": "PayByBandwidth"},
    {"deletion_protection": True},
    {"image_family": "mine"},
    {"storage_set_id": "ss-1"},
]


def refused(ecs: Any, action: str, **fields: Any) -> None:
    with ecs.refused("InvalidParameter", 400):
        ecs.call(action, **ORDER, **fields)


@pytest.mark.parametrize("action", ["run_instances", "create_instance"])
@pytest.mark.parametrize("fields", BOTH, ids=lambda fields: next(iter(fields)))
def test_what_is_not_here_is_not_ordered(ecs: Any, action: str, fields: dict[str, Any]) -> None:
    refused(ecs, action, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"launch_template_id": "lt-1"},
        {"launch_template_name": "mine"},
        {"auto_release_time": "2030-01-01T00:00:00Z"},
        {"host_names": ["a", "b"]},
        {"ipv_6address_count": 1},
        {"network_interface": [models.RunInstancesRequestNetworkInterface(v_switch_id="vsw-local-a")]},
        {"cpu_options": models.RunInstancesRequestCpuOptions(core=1)},
        {"system_disk": models.RunInstancesRequestSystemDisk(bursting_enabled=True)},
        {"data_disk": [models.RunInstancesRequestDataDisk(size=20, auto_snapshot_policy_id="sp-1")]},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_nor_what_only_one_of_the_two_knows(ecs: Any, fields: dict[str, Any]) -> None:
    refused(ecs, "run_instances", **fields)


def test_a_resource_group_is_not_found(ecs: Any) -> None:
    with ecs.refused("InvalidResourceGroup.NotFound", 404):
        ecs.call("run_instances", **ORDER, resource_group_id="rg-1")


@pytest.mark.parametrize("action", ["run_instances", "create_instance"])
def test_what_says_what_is_here_anyway_passes(ecs: Any, action: str) -> None:
    usual = {"instance_charge_type": "PostPaid", "spot_strategy": "NoSpot", "internet_charge_type": "PayByTraffic"}
    more = {"http_tokens": "optional", "io_optimized": "optimized", "deletion_protection": False, "key_pair_name": "me"}
    with ecs.refused("DryRunOperation", 400):
        ecs.call(action, **ORDER, **usual, **more)
