"""Errors as the real service names them. A handler raises one; `rpc.formats` turns it into the body a client reads."""

from dataclasses import dataclass


@dataclass
class ApiError(Exception):
    code: str
    message: str
    status: int = 400

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
    return ApiError("InvalidAction.NotFound", "Specified api is not found, please check your url and method.", 404)


def dry_run_passed() -> ApiError:
    return ApiError("DryRunOperation", "Request validation has been passed with DryRun flag set.")


def forbidden(code: str, message: str) -> ApiError:
    return ApiError(code, message, 403)
