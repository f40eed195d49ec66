"""Errors as the real service names them. A handler raises one; `rpc.formats` turns it into the body a client reads."""

# Every code that this cloud answers by name, under the HTTP status it comes with. Codes that are put together from a
# parameter's name (Invalid...NotFound) are not here: whoever puts them together says the status.
_CODES: dict[int, tuple[str, ...]] = {
    400: (
        "DryRunOperation",
        "Duplicate.TagKey",
        "IncompleteSignature",
        "IncorrectImageStatus",
        "InvalidBootMode.Malformed",
        "InvalidDescription.Malformed",
        "InvalidDevice.Malformed",
        "InvalidHostName.Malformed",
        "InvalidImage.DiskAmountOrSize",
        "InvalidImageName.Duplicated",
        "InvalidInstance.NotMatch",
        "InvalidInstanceName.Malformed",
        "InvalidInstanceType.ValueNotSupported",
        "InvalidLicenseType.NotSupported",
        "InvalidOSSBucket.NotFound",
        "InvalidOSSObject.NotFound",
        "InvalidOSSObject.Size",
        "InvalidOSSPrefix.Malformed",
        "InvalidParam.Type",
        "InvalidParameter",
        "InvalidParameter.Conflict",
        "InvalidParameter.DurationSeconds",
        "InvalidParameter.EncryptedNotSupported",
        "InvalidParameter.Format",
        "InvalidParameter.MinAmount",
        "InvalidParameter.NextToken",
        "InvalidParameter.PolicyGrammar",
        "InvalidParameter.PolicySize",
        "InvalidParameter.TagValue",
        "InvalidParameter.WorkingDir",
        "InvalidPassword.Malformed",
        "InvalidPolicy.Malformed",
        "InvalidPrivateIpAddress",
        "InvalidPrivateIpAddress.Duplicated",
        "InvalidPrivateIpAddress.Malformed",
        "InvalidSecurityToken.Expired",
        "InvalidSecurityToken.Malformed",
        "InvalidSecurityToken.MismatchWithAccessKey",
        "InvalidSignatureMethod",
        "InvalidSystemDiskSize.LessThanImageSize",
        "InvalidSystemDiskSize.ValueNotSupported",
        "InvalidTagCount",
        "InvalidTagKey.Malformed",
        "InvalidTagValue.Malformed",
        "InvalidTaskId.NotFound",
        "InvalidTimeStamp.Expired",
        "InvalidTimeStamp.Format",
        "InvalidUserData.Base64FormatInvalid",
        "MissingParam.InstanceId",
        "MissingParameter",
        "NumberExceed.ResourceIds",
        "NumberExceed.Tags",
        "OperationDenied.QuotaExceed",
        "QuotaExceed.Snapshot",
        "SignatureDoesNotMatch",
        "SignatureNonceUsed",
        "Throttling",
        "UnsupportedHTTPMethod",
    ),
    403: (
        "AllocatedAlready",
        "AuthorizationLimitExceed",
        "CmdContent.DecodeError",
        "CmdContent.ExceedLimit",
        "DependencyViolation",
        "DiskCreatingSnapshot",
        "Forbidden.RAM",
        "ImageIsCopying",
        "ImageIsExporting",
        "ImageIsImporting",
        "ImageNotAvailable",
        "ImageUsingByInstance",
        "IncorrectDiskStatus",
        "IncorrectDiskStatus.NeverAttached",
        "IncorrectInstanceStatus",
        "InstanceDiskLimitExceeded",
        "InstanceIds.ExceedLimit",
        "InvalidDevice.InUse",
        "InvalidDiskCategory.NotSupported",
        "InvalidDiskSize.NotSupported",
        "InvalidDiskSize.TooLarge",
        "InvalidDiskSize.TooSmall",
        "InvalidInstance.NotOriginInstance",
        "InvalidParameter.InstanceMismatch",
        "InvalidParameter.Malformed",
        "InvalidParameter.Mismatch",
        "InvalidSnapshotId.NotReady",
        "InvalidSourceSnapshot",
        "InvalidTaskId.IncorrectTaskStatus",
        "InvalidTaskId.TaskActionNotSupport",
        "InvalidUserData.SizeExceeded",
        "MissingParameter.DiskDeviceMapping",
        "NoPermission",
        "Operation.Forbidden",
        "OperationDenied",
        "OperationDenied.NoStock",
        "QuotaExceed.ShareImageUser",
        "ResourcesNotInSameZone",
        "SnapshotCreatedDisk",
        "SnapshotCreatedImage",
        "UserNotInTheWhiteList",
    ),
    404: (
        "InvalidAccessKeyId.NotFound",
        "InvalidAccount.Forbbiden",
        "InvalidAccount.NotFound",
        "InvalidAction.NotFound",
        "InvalidCmdType.NotFound",
        "InvalidDiskId.OperationNotSupported",
        "InvalidInstance.NotFound",
        "InvalidInvokeId.NotFound",
        "InvalidRegionId.NotFound",
        "InvalidRepeatMode.NotFound",
        "InvalidResourceGroup.NotFound",
        "InvalidResourceId.NotFound",
        "InvalidResourceType.NotFound",
        "InvalidZoneId.NotFound",
    ),
    413: ("RequestEntityTooLarge",),
    500: ("InternalError",),
    503: ("ServiceUnavailable",),
}
STATUS = {code: status for status, codes in _CODES.items() for code in codes}


class ApiError(Exception):
    def __init__(self, code: str, message: str, status: int | None = None) -> None:
        """`status` only for a code that STATUS does not have."""
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.status = STATUS.get(code, 400) if status is None else status

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def missing(parameter: str) -> ApiError:
    return ApiError(
        "MissingParameter",
        f'The input parameter "{parameter}" that is mandatory for processing this request is not supplied.',
    )


def invalid(parameter: str, reason: str = "") -> ApiError:
    tail = f" {reason}" if reason else ""
    return ApiError("InvalidParameter", f'The specified parameter "{parameter}" is not valid.{tail}')


def mandatory(parameter: str) -> ApiError:
    """As the gateway in front of every service says it, of what is common to all requests."""
    return ApiError(f"Missing{parameter}", f"{parameter} is mandatory for this action.")


def unfit(parameter: str) -> ApiError:
    """As the gateway says it."""
    return ApiError(f"Invalid{parameter}", f"Specified parameter {parameter} is not valid.")


def not_found(parameter: str, identifier: str) -> ApiError:
    """`parameter` is the request's name of the id: InvalidDiskId.NotFound is about DiskId."""
    return ApiError(f"Invalid{parameter}.NotFound", f"The specified {parameter} {identifier} does not exist.", 404)


def unknown_action() -> ApiError:
    return ApiError("InvalidAction.NotFound", "Specified api is not found, please check your url and method.")


def dry_run_passed() -> ApiError:
    return ApiError("DryRunOperation", "Request validation has been passed with DryRun flag set.")
