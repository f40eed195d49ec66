"""Who sent a request, by every method of signing that OSS takes."""

import hmac

from wavelift.localcloud.accounts import TEMPORARY, Accounts, BadToken, Credential, ExpiredToken, UnknownKey
from wavelift.localcloud.oss.errors import OssError
from wavelift.localcloud.oss.wire.request import S3_ALGORITHM, Request
from wavelift.localcloud.oss.wire.signatures import aws_v2, aws_v4, v1, v4
from wavelift.localcloud.oss.wire.signatures.claim import Claim


def authenticate(request: Request, accounts: Accounts, region: str) -> Credential | None:
    """None for a request that nobody signed."""
    if request.s3:
        refuse_chunks(request)
    claim = _claim(request, region)
    if claim is None:
        return None
    try:
        credential = accounts.find(claim.key, claim.token)
    except UnknownKey:
        raise OssError("InvalidAccessKeyId", OSSAccessKeyId=claim.key) from None
    except BadToken:
        # With a token every key is looked for among the temporary ones.
        temporary = claim.key.startswith(TEMPORARY)
        code = "InvalidSecurityToken" if claim.token and temporary else "InvalidAccessKeyId"
        raise OssError(code, OSSAccessKeyId=claim.key) from None
    except ExpiredToken:
        raise OssError("SecurityTokenExpired") from None
    if not hmac.compare_digest(claim.expected(credential.secret).encode(), claim.signature.encode()):
        raise OssError(
            "SignatureDoesNotMatch",
            OSSAccessKeyId=claim.key,
            SignatureProvided=claim.signature,
            StringToSign=claim.text.decode("utf-8", "replace"),
            StringToSignBytes=claim.text.hex(" ").upper(),
            **claim.details,
        )
    return credential


def _claim(request: Request, region: str) -> Claim | None:
    authorization = request.header("authorization")
    if authorization.startswith(v4.ALGORITHM):
        return v4.header_claim(request, region)
    if authorization.startswith(S3_ALGORITHM):
        return aws_v4.header_claim(request)
    if authorization.startswith(aws_v2.SCHEME):
        return aws_v2.header_claim(request)
    if authorization.startswith(v1.SCHEME):
        return v1.header_claim(request)
    if authorization:
        raise OssError("InvalidArgument", "Unsupported authorization type.", ArgumentName="Authorization")
    if request.parameter("x-oss-signature-version") == v4.ALGORITHM:
        return v4.url_claim(request, region)
    if request.parameter("X-Amz-Algorithm") == S3_ALGORITHM:
        return aws_v4.url_claim(request)
    if request.parameter("AWSAccessKeyId") is not None:
        return aws_v2.url_claim(request)
    if request.parameter("OSSAccessKeyId") is not None:
        return v1.url_claim(request)
    return None


def refuse_chunks(request: Request) -> None:
    """OSS takes no body in signed chunks, nor one with a checksum behind it."""
    encodings = {each.strip() for each in request.header("content-encoding").split(",")}
    streamed = request.header("x-amz-content-sha256").startswith("STREAMING-")
    if streamed or "aws-chunked" in encodings or request.header("x-amz-trailer"):
        raise OssError(
            "InvalidArgument",
            "aws-chunked encoding is not supported with the specified x-amz-content-sha256 value.",
            ArgumentName="Content-Encoding",
            ArgumentValue="aws-chunked",
        )
