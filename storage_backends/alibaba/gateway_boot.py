"""Starting the gateway on its instance, and what it shares with the orchestrator: key of the tokens, certificate."""

from __future__ import annotations

import hashlib
import hmac
import re

from storage_backends.errors import InvalidRequest
from wavelift.service.tls import FILE, derive_identity

_SCRIPT = """#!/bin/sh
# Starts the Wavelift gateway beside the volumes attached to this instance.
set -eu
umask 077
state=${{DEVICE_DIR:+$PWD/wavelift}}
state=${{state:-/var/lib/wavelift}}
mkdir -p "$state"
printf %s '{key}' > "$state/gateway.key"
cat > "$state/{tls_file}" <<'END'
{tls}END
address=${{INSTANCE_ADDRESS:-0.0.0.0}}
exec {command} gateway --listen "$address:{port}" --data-listen "$address:{data_port}" --state "$state" \\
  --devices "${{DEVICE_DIR:-/dev/disk/by-id}}" --key-file "$state/gateway.key"
"""
_COMMAND = re.compile(r"[A-Za-z0-9/._= -]+")


def gateway_key(secret: str, run: str) -> str:
    """The key of one run's gateway: knowing it gives nothing on any other run's."""
    return hmac.new(secret.encode(), f"wavelift-gateway:{run}".encode(), hashlib.sha256).hexdigest()


def gateway_identity(secret: str, run: str) -> tuple[bytes, str]:
    """Private key and certificate (PEM) of one run's gateway, and the certificate's fingerprint."""
    seed = hmac.new(secret.encode(), f"wavelift-gateway-tls:{run}".encode(), hashlib.sha256).digest()
    return derive_identity(seed)


def check_command(command: str) -> None:
    """Raises InvalidRequest for what a shell would not take word by word."""
    if not _COMMAND.fullmatch(command):
        raise InvalidRequest(
            f"gateway_command {command!r} is not a path with plain arguments.",
            "Use letters, digits, / . _ = - and spaces only (extra of the cloud connection).",
        )


def gateway_user_data(*, command: str, key: str, tls: bytes, port: int) -> str:
    """The user-data script. `command` is a path with plain arguments. Raises InvalidRequest for anything else.

    `tls` is the private key with its certificate.
    """
    check_command(command)
    return _SCRIPT.format(command=command, key=key, tls_file=FILE, tls=tls.decode(), port=port, data_port=port + 1)
