"""The clouds' error codes as typed errors.

Source: the error codes in the documentation of ECS and STS, and each action's own.
"""

from __future__ import annotations

from storage_backends.errors import (
    BackendError,
    Conflict,
    Denied,
    DryRunPassed,
    Expired,
    InvalidRequest,
    NotFound,
    NotWhitelisted,
    QuotaExceeded,
    TokenUsed,
)

_KEY = "Check the access key in the Airflow connection; it must belong to an active RAM user of this cloud."
_RENEW = "Put a new access key and security_token into the Airflow connection, or use role_arn, which renews itself."
_CLOCK = "Set this machine's clock: requests carry its time, and the cloud accepts 15 minutes of difference."
_RULES: tuple[tuple[tuple[str, ...], type[BackendError], str], ...] = (
    (("InvalidSecurityToken.Expired", "SecurityTokenExpired"), Expired, _RENEW),
    (("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSecurityToken", "IncompleteSignature"), Denied, _KEY),
    (("InvalidTimeStamp",), Denied, _CLOCK),
    (("UserNotInTheWhiteList",), NotWhitelisted, "Ask the cloud's support to enable it for the account."),
    (("DryRunOperation",), DryRunPassed, "Ask without the dry run."),
    (
        ("Forbidden", "NoPermission", "EntityNotExist.Role"),
        Denied,
        "Grant this action to the RAM user or role: docs/ram-policy.json lists what is needed.",
    ),
    (("Quota", "QuotaExceed", "InstanceDiskLimitExceeded"), QuotaExceeded, "Raise the quota or free some."),
    (("IdempotentParam", "IdempotenceParam"), TokenUsed, "Try again."),
    (("OperationDenied.NoStock",), QuotaExceeded, "Choose another instance type or zone."),
    (
        ("InvalidVSwitchId.NotFound", "InvalidSecurityGroupId.NotFound"),
        NotFound,
        "Correct the id in the manifest.",
    ),
)
_CONFLICTS = (
    "AllocatedAlready",
    "Incorrect",
    "SnapshotCreated",
    "DiskCreatingSnapshot",
    "DependencyViolation",
    "OperationConflict",
    "InvalidOperation",
    "InvalidSnapshotId.NotReady",
    "ImageIs",
)
# Refused before anything was done, and welcome a little later. A nonce is drawn anew with each try.
_LATER = ("Throttling", "ServiceUnavailable", "SignatureNonceUsed")


def is_passing(code: str) -> bool:
    """Was the request refused only for now, and is it certain that nothing was done?"""
    return code.startswith(_LATER)


def typed(action: str, endpoint: str, code: str, text: str) -> BackendError:
    """The refusal of `action`, with what can be done about it."""
    message = f"{action} at {endpoint} was refused: {code}: {text.rstrip('.')}."
    for starts, kind, remedy in _RULES:
        if code.startswith(starts):
            return kind(message, remedy)
    if code.endswith(".NotFound"):
        return NotFound(message, "It may have been deleted by hand; run the migration again.")
    if code.startswith(_CONFLICTS):
        return Conflict(message, "Something else uses it; look at it in the cloud's console.")
    return InvalidRequest(message, "Correct the value named in the manifest or the connection.")
