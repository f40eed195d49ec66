"""Errors as OSS names them. Anything below HTTP raises one; `wire.xml` turns it into the body a client reads."""

TABLE: dict[str, tuple[int, str]] = {
    "AccessDenied": (403, "You have no right to access this object."),
    "BadDigest": (400, "The Content-MD5 you specified did not match what we received."),
    "BucketNotEmpty": (409, "The bucket has objects or unfinished uploads. Please delete them first."),
    "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed object size."),
    "EntityTooSmall": (400, "Your proposed upload is smaller than the minimum allowed object size."),
    "FileAlreadyExists": (409, "The object you specified already exists and can not be overwritten."),
    "InternalError": (500, "We encountered an internal error. Please try again."),
    "InvalidAccessKeyId": (403, "The OSS Access Key Id you provided does not exist in our records."),
    "InvalidArgument": (400, "Invalid argument."),
    "InvalidBucketName": (400, "The specified bucket is not valid."),
    "InvalidDigest": (400, "The Content-MD5 you specified is not valid."),
    "InvalidObjectName": (400, "The specified object is not valid."),
    "InvalidPart": (400, "One of the specified parts could not be found, or its entity tag did not match."),
    "InvalidPartOrder": (400, "The list of parts was not in ascending order."),
    "InvalidRange": (416, "The requested range cannot be satisfied."),
    "InvalidSecurityToken": (403, "The security token you provided is invalid."),
    "InvalidTag": (400, "The tag you have provided is not valid."),
    "MalformedXML": (400, "The XML you provided was not well-formed or did not validate against our schema."),
    "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
    "MissingArgument": (400, "A required argument is missing."),
    "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
    "NoSuchBucket": (404, "The specified bucket does not exist."),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchLifecycle": (404, "No Lifecycle found in the bucket."),
    "NoSuchUpload": (404, "The upload ID is not known: the upload may have been completed or aborted."),
    "NotImplemented": (501, "A header or query you provided implies functionality that is not implemented."),
    "NotModified": (304, "The object was not modified."),
    "ObjectNotAppendable": (409, "The object is not appendable."),
    "PositionNotEqualToLength": (409, "Position is not equal to the length of the object."),
    "PreconditionFailed": (412, "At least one of the preconditions you specified did not hold."),
    "RequestTimeTooSkewed": (403, "The difference between the request time and the current time is too large."),
    "SecondLevelDomainForbidden": (
        403,
        "The bucket you are attempting to access must be addressed using OSS third level domain.",
    ),
    "SecurityTokenExpired": (403, "The security token you provided has expired."),
    "SignatureDoesNotMatch": (
        403,
        "The request signature we calculated does not match the signature you provided. Check your key and signing"
        " method.",
    ),
    "TooManyBuckets": (400, "You have attempted to create more buckets than allowed."),
    "XAmzContentSHA256Mismatch": (400, "The provided x-amz-content-sha256 does not match what was computed."),
}


class OssError(Exception):
    """`details` are further elements of the error's body: OssError("NoSuchKey", Key="a/b")."""

    def __init__(self, code: str, message: str = "", **details: str) -> None:
        self.code = code
        self.status, usual = TABLE[code]
        self.message = message or usual
        self.details = details
        super().__init__(f"{code}: {self.message}")


class OtherError(OssError):
    """One that is not in the table: a fault rule asks for it."""

    def __init__(self, code: str, message: str, status: int) -> None:
        Exception.__init__(self, f"{code}: {message}")
        self.code, self.message, self.status = code, message, status
        self.details = {}


def invalid_argument(name: str, value: str, message: str = "") -> OssError:
    return OssError("InvalidArgument", message, ArgumentName=name, ArgumentValue=value)
