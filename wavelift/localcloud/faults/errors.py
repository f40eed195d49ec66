"""The errors that faults answer with, by the names that each service gives them."""

from wavelift.localcloud.errors import ApiError
from wavelift.localcloud.faults import kinds
from wavelift.localcloud.faults.kinds import Fault, Service

RETRY_AFTER = "x-acs-retry-after"


def error_of(fault: Fault, service: Service) -> ApiError:
    """What the service says. A fault that has no words of its own is an InternalError nobody gets to read."""
    oss = service == "oss"
    match fault:
        case kinds.Throttle():
            code = fault.code or ("TotalQpsLimitExceeded" if oss else "Throttling.User")
            return ApiError(code, "The request was denied due to flow control.", 503 if oss else 400)
        case kinds.Unavailable():
            return ApiError("ServiceUnavailable", "The service is temporarily unavailable.")
        case kinds.NoStock():
            return ApiError("OperationDenied.NoStock", "The zone has no stock of the requested resource.")
        case kinds.Quota():
            return ApiError(fault.code, "The quota of the account is used up.", 403)
        case kinds.Forbidden():
            code = {"ecs": "Forbidden.RAM", "oss": "AccessDenied", "sts": "NoPermission"}[service]
            return ApiError(code, "The user is not authorized to operate on the resource.", 403)
        case kinds.Error():
            return ApiError(fault.code, fault.message, fault.status)
        case _:
            return ApiError("InternalError", "The request failed for an unknown reason.")


def headers_of(fault: Fault, service: Service) -> dict[str, str]:
    if isinstance(fault, kinds.Throttle) and fault.retry_after_ms is not None and service != "oss":
        return {RETRY_AFTER: str(fault.retry_after_ms)}
    return {}
