"""What Airflow learns about this package: its connection types, with the fields their forms show."""

from __future__ import annotations

from typing import Any

from operators.hooks import AGENT_TYPE, CLOUD_TYPE


def get_provider_info() -> dict[str, Any]:
    """Entry point `apache_airflow_provider`."""
    return {
        "package-name": "wavelift",
        "name": "Wavelift",
        "description": "Migration of whole servers to Alibaba Cloud.",
        "extra-links": ["operators.evidence.EvidenceLink"],
        "connection-types": [
            {
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
            },
            {
                "connection-type": CLOUD_TYPE,
                "hook-class-name": "operators.hooks.CloudHook",
                "hook-name": "Wavelift: Alibaba Cloud",
                "ui-field-behaviour": {
                    "hidden-fields": ["host", "port", "schema"],
                    "relabeling": {"login": "Access key id", "password": "Access key secret"},
                    "placeholders": {
                        "extra": '{"gateway_image": "m-...", "gateway_instance_type": "ecs.g7.large", '
                        '"gateway_security_group": "sg-...", "gateway_secret": "32 characters or more"}'
                    },
                },
            },
        ],
    }
