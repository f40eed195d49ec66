import base64
import binascii
from collections.abc import Iterable
from typing import Any

from wavelift.localcloud.actions.fields import unsupported
from wavelift.localcloud.actions.paging import Limits, page
from wavelift.localcloud.actions.registry import Reply, action
from wavelift.localcloud.entities import Execution, Instance, Invocation
from wavelift.localcloud.errors import ApiError, invalid
from wavelift.localcloud.model.cloud import Cloud
from wavelift.localcloud.model.commands import CommandOrder
from wavelift.localcloud.model.context import check_region
from wavelift.localcloud.rpc.formats import timestamp
from wavelift.localcloud.rpc.parameters import Parameters

CONTENT_LIMIT = 24 * 1024  # in Base64
INSTANCE_LIMIT = 100
TYPE = "RunShellScript"
TYPES = frozenset({TYPE, "RunBatScript", "RunPowerShellScript"})
ENCODINGS = frozenset({"PlainText", "Base64"})
LIMITS = Limits(most=50)
MEANINGS = {
    "": "",
    "ClientNotResponse": "the agent in the instance does not answer",
    "ClientNotRunning": "no agent runs in the instance",
    "DirectoryNotExists": "the working directory does not exist",
    "ExecutionException": "the agent could not run the command",
    "ExecutionInterrupted": "the command was interrupted",
    "ExecutionTimeout": "the command ran longer than its time limit",
    "ExitCodeNonzero": "the exit code of the command is not zero",
    "InstanceNotRunning": "the instance was not running when the command was sent",
    "InstanceReleased": "the instance was released when the command was sent",
}
# Statuses of one instance, as the fields that are older tell them.
OLDER = {
    "Pending": "Running",
    "Running": "Running",
    "Stopping": "Stopping",
    "Success": "Finished",
    "Failed": "Finished",
    "Terminated": "Stopped",
    "Cancelled": "Stopped",
}


@action("RunCommand")
def run_command(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    kind = p.required("Type")
    if kind not in TYPES:
        raise ApiError("InvalidCmdType.NotFound", f"The command type {kind!r} does not exist.")
    if kind != TYPE:
        raise ApiError("InvalidInstance.NotMatch", f"The instances of this cloud run {TYPE} only.")
    if p.text("RepeatMode") not in {None, "Once"}:
        raise ApiError("InvalidRepeatMode.NotFound", "This cloud runs commands once.")
    if p.flag("EnableParameter") or p.text("Username") not in {None, "root"}:
        raise ApiError("Operation.Forbidden", "This cloud has no custom parameters and no other user than root.")
    unsupported(p, "Frequency", "ContainerId", "ContainerName", "Launcher", "OssOutputDelivery")
    if p.structures("ResourceTag"):
        raise invalid("ResourceTag", "Instances are named by InstanceId.")
    instances = list(dict.fromkeys(p.repeated("InstanceId")))
    if not instances:
        raise ApiError("MissingParam.InstanceId", "The parameter instanceId is missing or empty.")
    if len(instances) > INSTANCE_LIMIT:
        raise ApiError("InstanceIds.ExceedLimit", "The number of instance IDs exceeds the upper limit.")
    folder = p.text("WorkingDir") or ""
    if len(folder) > 200 or (folder and not folder.startswith("/")):
        raise ApiError("InvalidParameter.WorkingDir", "The specified parameter WorkingDir is not valid.")
    order = CommandOrder(
        content=_content(p),
        instances=instances,
        name=p.text("Name") or "",
        description=p.text("Description") or "",
        working_dir=folder,
        timeout=p.integer("Timeout", 1, 86400) or 60,
    )
    invocation = cloud.commands.run(order, p.token("RunCommand", status=403))
    return {"CommandId": invocation.command, "InvokeId": invocation.id}


def _content(p: Parameters) -> str:
    text = p.required("CommandContent")
    if p.choice("ContentEncoding", ENCODINGS) == "PlainText":
        data = text.encode()
    else:
        try:
            data = base64.b64decode(text, validate=True)
            text = data.decode()
        except (binascii.Error, UnicodeDecodeError):
            raise ApiError("CmdContent.DecodeError", "The CommandContent is not text in Base64.") from None
    if len(base64.b64encode(data)) > CONTENT_LIMIT:
        raise ApiError("CmdContent.ExceedLimit", "The maximum length of a command is exceeded.")
    return text


@action("StopInvocation")
def stop_invocation(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    cloud.commands.stop(p.required("InvokeId"), p.repeated("InstanceId"))
    return {}


@action("DescribeInvocations")
def describe_invocations(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    instance, status, output = p.text("InstanceId"), p.text("InvokeStatus"), p.flag("IncludeOutput")
    plain = p.choice("ContentEncoding", ENCODINGS) == "PlainText"
    invocations = [
        each
        for each in cloud.commands.all()
        if p.text("InvokeId") in {None, each.id}
        and p.text("CommandId") in {None, each.command}
        and p.text("CommandName") in {None, each.name}
        and p.text("CommandType") in {None, TYPE}
        and (instance is None or any(execution.instance == instance for execution in each.executions))
        and status in {None, _older_total(each)}
    ]
    found, fields = page(p, invocations, LIMITS)
    described = [
        {
            "InvokeId": each.id,
            "CommandId": each.command,
            "CommandName": each.name,
            "CommandDescription": each.description,
            "CommandType": TYPE,
            "CommandContent": each.content if plain else base64.b64encode(each.content.encode()).decode(),
            "WorkingDir": each.working_dir,
            "Timeout": each.timeout,
            "RepeatMode": "Once",
            "Timed": False,
            "CreationTime": timestamp(each.created),
            "InvocationStatus": _total(each),
            "InvokeStatus": _older_total(each),
            "InvokeInstances": {
                "InvokeInstance": [
                    _result(each, execution, output, plain)
                    | {"FinishTime": timestamp(execution.finished), "InstanceInvokeStatus": _older(execution)}
                    for execution in each.executions
                    if instance in {None, execution.instance}
                ]
            },
        }
        for each in found
    ]
    return {**fields, "Invocations": {"Invocation": described}}


@action("DescribeInvocationResults")
def describe_invocation_results(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    plain = p.choice("ContentEncoding", ENCODINGS) == "PlainText"
    results = [
        (each, execution)
        for each in cloud.commands.all()
        for execution in each.executions
        if p.text("InvokeId") in {None, each.id}
        and p.text("CommandId") in {None, each.command}
        and p.text("InstanceId") in {None, execution.instance}
        and p.text("InvokeRecordStatus") in {None, _older(execution)}
    ]
    found, fields = page(p, results, LIMITS, lambda pair: (pair[0].created, f"{pair[0].id} {pair[1].instance}"))
    described = [
        _result(each, execution, True, plain)
        | {
            "CommandId": each.command,
            "InvokeId": each.id,
            "InvokeRecordStatus": _older(execution),
            "FinishedTime": timestamp(execution.finished),
        }
        for each, execution in found
    ]
    return {"Invocation": {**fields, "InvocationResults": {"InvocationResult": described}}}


def _result(invocation: Invocation, execution: Execution, output: bool, plain: bool) -> dict[str, Any]:
    result: dict[str, Any] = {
        "InstanceId": execution.instance,
        "InvocationStatus": _status(execution),
        "CreationTime": timestamp(invocation.created),
        "StartTime": timestamp(execution.started),
        "StopTime": timestamp(execution.stopped),
        "ErrorCode": execution.error,
        "ErrorInfo": MEANINGS[execution.error],
        "Dropped": execution.dropped,
        "Repeats": 1 if execution.started else 0,
    }
    if execution.exit_code is not None:
        result["ExitCode"] = execution.exit_code
    if output:
        result["Output"] = _plain(execution.output) if plain else execution.output
    return result


def _plain(output: str) -> str:
    return base64.b64decode(output).decode(errors="replace")


def _status(execution: Execution) -> str:
    return "Stopping" if execution.stopping and execution.status == "Running" else execution.status


def _older(execution: Execution) -> str:
    return OLDER.get(_status(execution), "Failed")


def _total(invocation: Invocation) -> str:
    statuses = [_status(execution) for execution in invocation.executions]
    for under_way in ("Pending", "Running", "Stopping"):
        if under_way in statuses:
            return under_way
    stopped = {"Terminated", "Cancelled"}
    return _together("Success", ("Stopped" if s in stopped else s if s == "Success" else "Failed" for s in statuses))


def _older_total(invocation: Invocation) -> str:
    statuses = [_older(execution) for execution in invocation.executions]
    for under_way in ("Running", "Stopping"):
        if under_way in statuses:
            return under_way
    return _together("Finished", statuses)


def _together(well: str, ends: Iterable[str]) -> str:
    """One word for how a command ended on all its instances; those where it was stopped count for neither side."""
    kinds = set(ends)
    if {well, "Failed"} <= kinds:
        return "PartialFailed"
    return well if well in kinds else "Failed" if "Failed" in kinds else "Stopped"


@action("DescribeCloudAssistantStatus")
def describe_cloud_assistant_status(cloud: Cloud, p: Parameters) -> Reply:
    check_region(p.required("RegionId"))
    ids = p.repeated("InstanceId")
    instances = [i for i in cloud.instances.all() if not ids or i.id in ids]
    if p.text("OSType") not in {None, "Linux"}:
        instances = []
    found, fields = page(p, instances, LIMITS)
    reachable = cloud.commands.reachable(found)
    invocations = cloud.commands.all()
    statuses = [_assistant(instance, reachable[instance.id], invocations) for instance in found]
    return {**fields, "InstanceCloudAssistantStatusSet": {"InstanceCloudAssistantStatus": statuses}}


def _assistant(instance: Instance, reachable: bool, invocations: list[Invocation]) -> dict[str, Any]:
    mine = [e for each in invocations for e in each.executions if e.instance == instance.id]
    active = [e for e in mine if e.status in {"Pending", "Running"}]
    return {
        "InstanceId": instance.id,
        "CloudAssistantStatus": str(reachable).lower(),
        "OSType": "Linux",
        "InvocationCount": len(mine),
        "ActiveTaskCount": len(active),
        "LastInvokedTime": timestamp(max((e.started for e in mine), default=0)),
        "SupportSessionManager": False,
    }
