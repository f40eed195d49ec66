"""What Airflow learns about this package: its connection types, with the fields their forms show.

Airflow reads this while it starts: nothing of Airflow is imported here.
"""

from __future__ import annotations

from typing import Any

from storage_backends.plugin import Field, Form
from storage_backends.registry import backend_types

AGENT_TYPE = "wavelift_agent"
# Before the name of a backend, the type of its connections.
BACKEND_PREFIX = "wavelift_"
_UNUSED = ("host", "port", "schema", "extra")


def get_provider_info() -> dict[str, Any]:
    """Entry point `apache_airflow_provider`."""
    return {
        "package-name": "wavelift",
        "name": "Wavelift",
        "description": "Migration of whole servers to Alibaba Cloud.",
        "extra-links": ["operators.evidence.EvidenceLink"],
        "connection-types": [_agent(), *(_backend(name, found.form) for name, found in backend_types().items())],
    }


def _agent() -> dict[str, Any]:
    return {
        "connection-type": AGENT_TYPE,
        "hook-class-name": "operators.hooks.AgentHook",
        "hook-name": "Wavelift agent",
        "ui-field-behaviour": {
            "hidden-fields": ["login", "extra"],
            "relabeling": {"password": "Token", "schema": "Scheme"},
            "placeholders": {
                "host": "agent.example.com",
                "port": "8442",
                "schema": "https",
                "fingerprint": "64 hex digits: the fingerprint that the agent prints when it starts",
            },
        },
        "conn-fields": {
            "fingerprint": {
                "label": "Fingerprint",
                "description": "SHA-256 of the agent's certificate, which the agent prints when it starts. "
                "Nothing is sent to an agent that shows another certificate.",
                "schema": {"type": ["string", "null"]},
            }
        },
    }


def _backend(name: str, form: Form) -> dict[str, Any]:
    own = {"login": form.login, "password": form.password}
    return {
        "connection-type": f"{BACKEND_PREFIX}{name}",
        "hook-class-name": f"operators.hooks.{BACKEND_PREFIX}{name}",
        "hook-name": form.title,
        "ui-field-behaviour": {
            "hidden-fields": [*_UNUSED, *(field for field, label in own.items() if not label)],
            "relabeling": {field: label for field, label in own.items() if label},
            "placeholders": {field.name: field.placeholder for field in form.fields if field.placeholder},
        },
        "conn-fields": {field.name: _field(field) for field in form.fields},
    }


def _field(field: Field) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": [field.kind, "null"]}
    if field.choices:
        schema["enum"] = [*field.choices, None]
    if field.secret:
        schema["format"] = "password"
    return {"label": field.label, "description": field.description, "schema": schema}
