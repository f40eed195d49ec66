from wavelift.localcloud.actions.registry import Reply, action
from wavelift.localcloud.errors import missing
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.model.context import check_region
from wavelift.localcloud.rpc.parameters import Parameters


@action("TagResources")
def tag_resources(cloud: Cloud, p: Parameters) -> Reply:
    kind, identifiers = _targets(p)
    tags = p.tags()
    if not tags:
        raise missing("Tag.1.Key")
    cloud.tags.add(kind, identifiers, tags)
    return {}


@action("UntagResources")
def untag_resources(cloud: Cloud, p: Parameters) -> Reply:
    kind, identifiers = _targets(p)
    cloud.tags.remove(kind, identifiers, p.repeated("TagKey"), p.flag("All"))
    return {}


def _targets(p: Parameters) -> tuple[str, list[str]]:
    check_region(p.required("RegionId"))
    kind, identifiers = p.required("ResourceType"), p.repeated("ResourceId")
    if not identifiers:
        raise missing("ResourceId.1")
    return kind.lower(), identifiers


@action("ListTagResources")
def list_tag_resources(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    kind, wanted = p.required("ResourceType").lower(), p.wanted_tags()
    found = [
        {"ResourceId": entity.id, "ResourceType": kind, "TagKey": key, "TagValue": value}
        for entity in cloud.tags.list(kind, p.repeated("ResourceId"), wanted)
        for key, value in entity.tags.items()
        if not wanted or key in wanted
    ]
    return {"NextToken": "", "TagResources": {"TagResource": found}}
