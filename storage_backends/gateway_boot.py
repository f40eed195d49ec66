"""Starting the gateway on its instance, and the keys it shares with the orchestrator."""

from __future__ import annotations

import hashlib
import hmac
import re

from storage_backends.errors import InvalidRequest

_SCRIPT = """#!/bin/sh
# Starts the Wavelift gateway beside the volumes attached to this instance.
set -eu
umask 077
state=${{DEVICE_DIR:+$PWD/wavelift}}
state=${{state:-/var/lib/wavelift}}
mkdir -p "$state"
printf %s '{key}' > "$state/gateway.key"
address=${{INSTANCE_ADDRESS:-0.0.0.0}}
exec {command} gateway --listen "$address:{port}" --data-listen "$address:{data_port}" --state "$state" \\
  --devices "${{DEVICE_DIR:-/dev/disk/by-id}}" --key-file "$state/gateway.key"
"""
_COMMAND = re.compile(r"[A-Za-z0-9/._= -]+")


def gateway_key(secret: str, run: str) -> str:
    """The key of one run's gateway: knowing it gives nothing on any other run's."""
    return hmac.new(secret.encode(), f"wavelift-gateway:{run}".encode(), hashlib.sha256).hexdigest()


def check_command(command: str) -> None:
    """Raises InvalidRequest for what a shell would not take word by word."""
    if not _COMMAND.fullmatch(command):
        raise InvalidRequest(
            f"gateway_command {command!r} is not a path with plain arguments.",
            "Use letters, digits, / . _ = - and spaces only (extra of the cloud connection).",
        )


def gateway_user_data(*, command: str, key: str, port: int) -> str:
    """The user-data script. `command` is a path with plain arguments. Raises InvalidRequest for anything else."""
    check_command(command)
    return _SCRIPT.format(command=command, key=key, port=port, data_port=port + 1)
