from datetime import UTC, datetime
from typing import Any

from wavelift.localcloud.actions import fields
from wavelift.localcloud.actions.paging import identifiers, page_by_number
from wavelift.localcloud.actions.progress import progress
from wavelift.localcloud.actions.registry import Reply, action
from wavelift.localcloud.entities import REGION, Job
from wavelift.localcloud.errors import ApiError, invalid
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.model.context import check_region
from wavelift.localcloud.model.tasks import cancellable
from wavelift.localcloud.rpc.formats import timestamp
from wavelift.localcloud.rpc.parameters import Parameters
from wavelift.localcloud.states import TaskStatus

MOST_IDS = 100
# A filter by any other status has no effect.
ASKED_FOR = frozenset({"Finished", "Processing", "Failed"})


@action("DescribeTasks")
def describe_tasks(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    fields.unsupported(p, "TaskGroupId")
    ids = wanted.split(",") if (wanted := p.text("TaskIds")) else None
    if ids is not None and len(ids) > MOST_IDS:
        raise invalid("TaskIds", f"There are at most {MOST_IDS}.")
    resources, kind, status = identifiers(p, "ResourceIds", MOST_IDS), p.text("TaskAction"), p.text("TaskStatus")
    since, until = _time(p, "StartTime"), _time(p, "EndTime")
    jobs = [
        job
        for job in cloud.tasks.all()
        if (ids is None or job.id in ids)
        and (not resources or job.resource in resources)
        and kind in {None, job.action}
        and (status not in ASKED_FOR or status == job.status.value)
        and (since is None or job.created >= since)
        and (until is None or job.created <= until)
    ]
    found, paging = page_by_number(p, jobs)
    return {**paging, "RegionId": REGION, "TaskSet": {"Task": [_describe(job) for job in found]}}


def _time(p: Parameters, field: str) -> float | None:
    value = p.text(field)
    if value is None:
        return None
    for form in ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%MZ"):
        try:
            return datetime.strptime(value, form).replace(tzinfo=UTC).timestamp()
        except ValueError:
            continue
    raise ApiError(f"Invalid{field}.Malformed", f"The specified {field} is not a time.")


def _describe(job: Job) -> dict[str, Any]:
    return {
        "TaskId": job.id,
        "TaskAction": job.action,
        "TaskStatus": job.status.value,
        "ResourceId": job.resource,
        "SupportCancel": str(cancellable(job)).lower(),
        "CreationTime": timestamp(job.created),
        "FinishedTime": timestamp(job.finished),
    }


@action("DescribeTaskAttribute")
def describe_task_attribute(cloud: Cloud, p: Parameters) -> Reply:
    """One operation in each task: what it made, or why it failed."""
    check_region(p.required("RegionId"))
    job = cloud.tasks.get(p.required("TaskId"))
    done, failed = job.status is TaskStatus.FINISHED, job.status is TaskStatus.FAILED
    outcome = "Success" if done else "Failed" if failed else job.status.value
    operation = {
        "OperationStatus": outcome,
        "ErrorCode": job.error,
        "ErrorMsg": job.message,
        "RelatedItemSet": {"RelatedItem": [{"Name": name, "Value": value} for name, value in _items(job)]},
    }
    about = {name: value for name, value in _describe(job).items() if name != "ResourceId"}
    return {
        **about,
        "RegionId": REGION,
        "TaskProcess": progress(job, done),
        "TotalCount": 1,
        "SuccessCount": int(done),
        "FailedCount": int(failed),
        "OperationProgressSet": {"OperationProgress": [operation]},
    }


def _items(job: Job) -> list[tuple[str, str]]:
    if job.action == "ExportImage":
        objects = [("OSSObject", key) for key in job.results]
        return [("OSSBucket", job.bucket), *objects, ("ImageFormat", job.format.lower())]
    return [("ImageId" if job.action == "ImportImage" else "DiskId", job.resource)]


@action("CancelTask")
def cancel_task(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    cloud.tasks.cancel(p.required("TaskId"))
    return {}
