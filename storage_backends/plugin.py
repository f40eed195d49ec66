"""What a package says of a backend that it brings: its connection's form, how it is opened. See docs/backends.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from storage_backends.base import StorageBackend
from storage_backends.fields import Fields


@dataclass(frozen=True)
class Field:
    """A field of the connection's form, kept in its extra under `name`. Where `secret`, the name has to contain one of
    the words by which Airflow knows what to mask everywhere: secret, password, token, passphrase."""

    name: str
    label: str
    description: str = ""
    placeholder: str = ""
    kind: Literal["string", "number", "boolean"] = "string"
    choices: tuple[str, ...] = ()
    secret: bool = False


@dataclass(frozen=True)
class Form:
    """`login` and `password` are the labels of Airflow's own two fields, which are hidden where these are empty."""

    title: str
    fields: tuple[Field, ...]
    login: str = ""
    password: str = ""


@dataclass(frozen=True)
class BackendType:
    """`opened` gets the connection's fields, region and zone, empty where nobody said one. It raises BackendError, and
    should import what takes long to load no sooner than then: forms are shown by processes that open nothing."""

    form: Form
    opened: Callable[[Fields, str, str], StorageBackend]
