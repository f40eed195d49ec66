from wavelift.localcloud.actions.paging import Limits, Place, page_by_token
from wavelift.localcloud.actions.registry import Reply, action
from wavelift.localcloud.errors import ApiError, invalid, missing
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.model.context import check_region
from wavelift.localcloud.rpc.parameters import Parameters

MOST_RESOURCES = 50
MOST_TAGS = 20
PAGE = Limits(most=50, usual=50)


@action("TagResources")
def tag_resources(cloud: Cloud, p: Parameters) -> Reply:
    kind, resources = _targets(p)
    _check_keys([tag.required("Key") for tag in p.structures("Tag")])
    tags = p.tags()
    if not tags:
        raise missing("Tag")
    cloud.tags.add(kind, resources, tags)
    return {}


@action("UntagResources")
def untag_resources(cloud: Cloud, p: Parameters) -> Reply:
    """Without keys nothing goes, unless everything is to go."""
    kind, resources = _targets(p)
    keys = p.repeated("TagKey")
    _check_keys(keys)
    cloud.tags.remove(kind, resources, keys, p.flag("All"))
    return {}


def _check_keys(keys: list[str]) -> None:
    if len(keys) > MOST_TAGS:
        raise ApiError("NumberExceed.Tags", f"The Tags parameter's number is exceed, valid: {MOST_TAGS}.")
    if len(set(keys)) < len(keys):
        raise ApiError("Duplicate.TagKey", "The Tag.N.Key contain duplicate key.")


def _targets(p: Parameters) -> tuple[str, list[str]]:
    check_region(p.required("RegionId"))
    kind, resources = p.required("ResourceType"), _resources(p)
    if not resources:
        raise missing("ResourceId")
    return kind.lower(), resources


def _resources(p: Parameters) -> list[str]:
    resources = p.repeated("ResourceId")
    if len(resources) > MOST_RESOURCES:
        raise ApiError("NumberExceed.ResourceIds", f"The ResourceIds parameter's number is exceed: {MOST_RESOURCES}.")
    return resources


@action("ListTagResources")
def list_tag_resources(cloud: Cloud, p: Parameters) -> Reply:
    """One line for each tag of each resource that has all the wanted tags."""
    check_region(p.required("RegionId"))
    if p.structures("TagFilter"):
        raise invalid("TagFilter", "This cloud does not search tags by parts of them.")
    if any(tag.text("Key") is None for tag in p.structures("Tag")):
        raise ApiError("InvalidParameter.TagValue", "The parameter Tag.N.Value needs a Tag.N.Key.")
    kind, resources, wanted = p.required("ResourceType").lower(), _resources(p), p.wanted_tags()
    _check_keys(list(wanted))
    if not resources and not wanted:
        raise missing("ResourceId")
    lines: list[tuple[Place, dict[str, str]]] = [
        (
            (entity.created, f"{entity.id} {key}"),
            {"ResourceId": entity.id, "ResourceType": kind, "TagKey": key, "TagValue": value},
        )
        for entity in cloud.tags.list(kind, resources, wanted)
        for key, value in entity.tags.items()
        if not wanted or key in wanted
    ]
    found, token = page_by_token(p, lines, PAGE, lambda line: line[0])
    return {"NextToken": token, "TagResources": {"TagResource": [line for _, line in found]}}
