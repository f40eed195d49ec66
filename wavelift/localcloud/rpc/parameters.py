"""The parameters of a request, typed: what is missing or malformed is refused by name."""

import hashlib
import json
import re
from collections.abc import Mapping

from wavelift.localcloud.errors import ApiError, invalid, missing
from wavelift.localcloud.store import Token

TAG_LIMIT = 20
TOKEN_LENGTH = 64
PAGE_SIZE = 10
PAGE_LIMIT = 100


class Parameters:
    def __init__(self, values: Mapping[str, str], where: str = "") -> None:
        # An empty value counts as none, as it does for the real service.
        self._values = {name: value for name, value in values.items() if value != ""}
        self._where = where

    def text(self, name: str) -> str | None:
        return self._values.get(name)

    def required(self, name: str) -> str:
        value = self._values.get(name)
        if value is None:
            raise missing(self._where + name)
        return value

    def choice(self, name: str, choices: frozenset[str]) -> str | None:
        value = self.text(name)
        if value is not None and value not in choices:
            raise invalid(self._where + name, f"One of {', '.join(sorted(choices))} is.")
        return value

    def integer(self, name: str, minimum: int = 0, maximum: int = 2**31 - 1) -> int | None:
        value = self._values.get(name)
        if value is None:
            return None
        if not re.fullmatch(r"[0-9]{1,10}", value) or not minimum <= int(value) <= maximum:
            raise invalid(self._where + name)
        return int(value)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._values.get(name)
        if value is None:
            return default
        if value.lower() not in {"true", "false"}:
            raise invalid(self._where + name)
        return value.lower() == "true"

    def json_list(self, name: str) -> list[str] | None:
        value = self._values.get(name)
        if value is None:
            return None
        try:
            items = json.loads(value)
        except (ValueError, RecursionError):
            raise invalid(self._where + name) from None
        if not isinstance(items, list) or len(items) > PAGE_LIMIT or not all(isinstance(i, str) for i in items):
            raise invalid(self._where + name)
        return items

    def repeated(self, name: str) -> list[str]:
        """Name.1, Name.2, ..."""
        pattern = re.compile(re.escape(name) + r"\.([0-9]+)")
        found = {int(m[1]): value for key, value in self._values.items() if (m := pattern.fullmatch(key))}
        return [found[index] for index in sorted(found)]

    def structure(self, name: str) -> "Parameters":
        """Name.Field, ..."""
        prefix = f"{name}."
        inner = {key.removeprefix(prefix): v for key, v in self._values.items() if key.startswith(prefix)}
        return Parameters(inner, self._where + prefix)

    def structures(self, name: str) -> list["Parameters"]:
        """Name.1.Field, Name.2.Field, ..."""
        pattern = re.compile(re.escape(name) + r"\.([0-9]+)\.(.+)")
        found: dict[int, dict[str, str]] = {}
        for key, value in self._values.items():
            if match := pattern.fullmatch(key):
                found.setdefault(int(match[1]), {})[match[2]] = value
        return [Parameters(found[index], f"{self._where}{name}.{index}.") for index in sorted(found)]

    def tags(self) -> dict[str, str]:
        tags = {tag.required("Key"): tag.text("Value") or "" for tag in self.structures("Tag")}
        if len(tags) > TAG_LIMIT:
            raise ApiError("InvalidTagCount", f"A request has at most {TAG_LIMIT} tags.")
        for key, value in tags.items():
            if len(key) > 128 or key.startswith(("aliyun", "acs:")) or "http://" in key or "https://" in key:
                raise ApiError("InvalidTagKey.Malformed", f"The tag key {key!r} is malformed.")
            if len(value) > 128 or "http://" in value or "https://" in value:
                raise ApiError("InvalidTagValue.Malformed", f"The tag value {value!r} is malformed.")
        return tags

    def wanted_tags(self) -> dict[str, str | None]:
        """Tags as a filter: one without a value stands for any."""
        return {tag.required("Key"): tag.text("Value") for tag in self.structures("Tag")}

    def token(self, action: str, code: str = "IdempotentParameterMismatch", status: int = 400) -> Token | None:
        value = self._values.get("ClientToken")
        if value is None:
            return None
        if len(value) > TOKEN_LENGTH or not value.isascii():
            raise invalid("ClientToken", f"It has at most {TOKEN_LENGTH} ASCII characters.")
        rest = sorted((key, v) for key, v in self._values.items() if key != "ClientToken")
        fingerprint = hashlib.sha256(json.dumps(rest).encode()).hexdigest()
        mismatch = ApiError(
            code, "Another request with the same ClientToken and other parameters was made before.", status
        )
        return Token(action, value, fingerprint, mismatch)
