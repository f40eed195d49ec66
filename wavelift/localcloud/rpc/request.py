"""A request as it came over HTTP, whichever of the two ways it is signed."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import parse_qsl

from wavelift.localcloud.errors import mandatory

FORM = "application/x-www-form-urlencoded"
# About the request itself. An action that is asked for twice has the same parameters but never the same of these.
COMMON = frozenset(
    {
        "AccessKeyId",
        "Action",
        "Format",
        "SecurityToken",
        "Signature",
        "SignatureMethod",
        "SignatureNonce",
        "SignatureType",
        "SignatureVersion",
        "Timestamp",
        "Version",
    }
)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: str  # raw, as it came
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    @cached_property
    def query_pairs(self) -> list[tuple[str, str]]:
        return parse_qsl(self.query, keep_blank_values=True)

    @cached_property
    def fields(self) -> dict[str, str]:
        """Of the query and of a form."""
        pairs = self.query_pairs
        if self.headers.get("content-type", "").startswith(FORM):
            pairs = pairs + parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True)
        return dict(pairs)

    @cached_property
    def by_headers(self) -> bool:
        """Is it of the newer kind, which keeps what is about the request in headers? The older SDKs send some too."""
        return bool(self.headers.get("authorization")) or (
            "x-acs-action" in self.headers and "Action" not in self.fields
        )

    @property
    def action(self) -> str:
        return self._common("Action")

    @property
    def version(self) -> str:
        return self._common("Version")

    @cached_property
    def parameters(self) -> dict[str, str]:
        """What the action is asked to do."""
        if self.by_headers:
            return self.fields
        return {name: value for name, value in self.fields.items() if name not in COMMON}

    def _common(self, name: str) -> str:
        value = self.headers.get(f"x-acs-{name.lower()}") if self.by_headers else self.fields.get(name)
        if not value:
            raise mandatory(name)
        return value
