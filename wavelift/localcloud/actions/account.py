from wavelift.localcloud.actions.paging import identifiers
from wavelift.localcloud.actions.registry import Reply, action
from wavelift.localcloud.entities import INSTANCE_TYPES
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.model.context import check_region
from wavelift.localcloud.rpc.parameters import Parameters

MOST = 8
UNLIMITED = 100_000


@action("DescribeAccountAttributes")
def describe_account_attributes(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    wanted = identifiers(p, "AttributeName", MOST)
    used = sum(INSTANCE_TYPES[instance.type].cores for instance in cloud.instances.all())
    values = {
        "instance-network-type": "vpc",
        "real-name-authentication": "yes",
        "max-security-groups": str(cloud.options.quotas.groups),
        "max-postpaid-instance-vcpu-count": str(UNLIMITED),
        "used-postpaid-instance-vcpu-count": str(used),
    }
    items = [
        {"AttributeName": name, "AttributeValues": {"ValueItem": [{"Value": value}]}}
        for name, value in values.items()
        if not wanted or name in wanted
    ]
    return {"AccountAttributeItems": {"AccountAttributeItem": items}}
