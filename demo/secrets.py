"""The secrets of one demo stack: made at random, kept in one file that only its owner can read."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.fernet import Fernet


@dataclass(frozen=True)
class StackSecrets:
    """Every secret a stack needs; nothing is fixed, nothing is shared between two stacks."""

    airflow_password: str
    jwt_secret: str
    api_secret_key: str
    fernet_key: str
    agent_token: str
    gateway_secret: str
    archive_secret: str

    @classmethod
    def make(cls) -> StackSecrets:
        return cls(
            airflow_password=secrets.token_urlsafe(12),
            jwt_secret=secrets.token_urlsafe(48),
            api_secret_key=secrets.token_urlsafe(32),
            fernet_key=Fernet.generate_key().decode(),
            agent_token=secrets.token_urlsafe(32),
            gateway_secret=secrets.token_hex(32),
            archive_secret=secrets.token_hex(32),
        )

    @classmethod
    def of(cls, file: Path) -> StackSecrets:
        """What the file holds; made and written where there is none."""
        if file.exists():
            return cls(**json.loads(file.read_text()))
        made = cls.make()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(json.dumps(asdict(made)))
        return made
