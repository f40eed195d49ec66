"""The Security Token Service: temporary keys, and who a key is."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from wavelift.localcloud.accounts import LONGEST, Accounts, Credential
from wavelift.localcloud.errors import ApiError, unknown_action
from wavelift.localcloud.policy import MalformedPolicy, allows, parse
from wavelift.localcloud.rpc.formats import timestamp
from wavelift.localcloud.rpc.parameters import Parameters

VERSION = "2015-04-01"
SHORTEST = 900
USUAL = 3600
POLICY_LENGTH = 2048
_ROLE = re.compile(r"acs:ram::(?P<account>[0-9]+):role/(?P<role>[A-Za-z0-9.-]{1,64})")
_SESSION = re.compile(r"[A-Za-z0-9.@_-]{2,64}")

Reply = dict[str, Any]


class Sts:
    product = "Sts"

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._actions = {"AssumeRole": self._assume_role, "GetCallerIdentity": self._get_caller_identity}

    def find(self, action: str) -> Callable[[Credential, Mapping[str, str]], Reply]:
        if action not in self._actions:
            raise unknown_action()
        return self._actions[action]

    def _assume_role(self, caller: Credential, parameters: Mapping[str, str]) -> Reply:
        """Any role of any account exists and may do everything."""
        p = Parameters(parameters)
        arn, session = p.required("RoleArn"), p.required("RoleSessionName")
        role = _ROLE.fullmatch(arn)
        if role is None:
            raise _malformed("RoleArn")
        if not _SESSION.fullmatch(session):
            raise _malformed("RoleSessionName")
        if not allows(caller.policy, "sts:AssumeRole", arn):
            raise ApiError("NoPermission", "You are not authorized to do this action. You should be authorized by RAM.")
        issued = self._accounts.issue(_duration(p), _policy(p), arn, session)
        return {
            "AssumedRoleUser": {"Arn": f"{arn}/{session}", "AssumedRoleId": f"{issued.identifier}:{session}"},
            "Credentials": {
                "AccessKeyId": issued.key,
                "AccessKeySecret": issued.secret,
                "SecurityToken": issued.token,
                "Expiration": timestamp(issued.expires),
            },
        }

    def _get_caller_identity(self, caller: Credential, parameters: Mapping[str, str]) -> Reply:
        identity = {"AccountId": caller.account, "Arn": caller.arn}
        if caller.role:
            principal = f"{caller.identifier}:{caller.session}"
            extra = {"IdentityType": "AssumedRoleUser", "PrincipalId": principal, "RoleId": caller.identifier}
        else:
            extra = {"IdentityType": "RAMUser", "PrincipalId": caller.identifier, "UserId": caller.identifier}
        return identity | extra


def _duration(p: Parameters) -> int:
    text = p.text("DurationSeconds") or str(USUAL)
    if not re.fullmatch("[0-9]{1,6}", text) or not SHORTEST <= int(text) <= LONGEST:
        raise ApiError(
            "InvalidParameter.DurationSeconds", f"The Min/Max value of DurationSeconds is 15min/{LONGEST // 3600}hr."
        )
    return int(text)


def _policy(p: Parameters) -> dict[str, Any] | None:
    text = p.text("Policy")
    if text is None:
        return None
    if len(text.encode()) > POLICY_LENGTH:
        raise ApiError("InvalidParameter.PolicySize", f"The size of Policy must be smaller than {POLICY_LENGTH} bytes.")
    try:
        return parse(text)
    except MalformedPolicy as error:
        raise ApiError(
            "InvalidParameter.PolicyGrammar", f"The parameter Policy has not passed grammar check: {error}."
        ) from None


def _malformed(parameter: str) -> ApiError:
    return ApiError(f"InvalidParameter.{parameter}", f"The parameter {parameter} is wrongly formed.")
