"""Starting the gateway on its instance, and the keys it shares with the orchestrator."""

from __future__ import annotations

import hashlib
import hmac
import re

_SCRIPT = """#!/bin/sh
# Starts the Wavelift gateway beside the volumes attached to this instance.
set -eu
umask 077
state=${{DEVICE_DIR:+$PWD/wavelift}}
state=${{state:-/var/lib/wavelift}}
mkdir -p "$state"
printf %s '{key}' > "$state/gateway.key"
exec {command} gateway --listen "${{INSTANCE_ADDRESS:-0.0.0.0}}:{port}" --state "$state" \\
  --devices "${{DEVICE_DIR:-/dev/disk/by-id}}" --key-file "$state/gateway.key"
"""
_COMMAND = re.compile(r"^[A-Za-z0-9/._= -]+$")


def gateway_key(secret: str, run: str) -> str:
    """The key of one run's gateway: knowing it gives nothing on any other run's."""
    return hmac.new(secret.encode(), f"wavelift-gateway:{run}".encode(), hashlib.sha256).hexdigest()


def gateway_user_data(*, command: str, key: str, port: int) -> str:
    """The user-data script. `command` is a path with plain arguments. Raises ValueError for anything else."""
    if not _COMMAND.match(command):
        raise ValueError(f"gateway_command {command!r} may hold letters, digits, / . _ = - and spaces only")
    return _SCRIPT.format(command=command, key=key, port=port)
