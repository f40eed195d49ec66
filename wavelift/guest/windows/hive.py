"""A registry hive: bytes in, bytes out. What is set to what it is already leaves every byte as it was."""

from __future__ import annotations

import struct
import tempfile
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from wavelift.guest.bindings import load
from wavelift.guest.errors import UnsupportedGuest

_BINDING = {"libhivexmod": "libhivexmod*.so", "hivex": "hivex/__init__.py"}
_BASE_BLOCK = 4096
_DAMAGED = "check the file system (chkdsk /f) and the registry on the source, and replicate again"
_DIRTY = "shut the source down in full (shutdown /s /t 0) and replicate again"


class Kind(IntEnum):
    SZ = 1
    EXPAND_SZ = 2
    BINARY = 3
    DWORD = 4
    MULTI_SZ = 7


@dataclass(frozen=True)
class Value:
    """As it is stored. Text is UTF-16, each string ended by a zero."""

    kind: int
    data: bytes

    @property
    def text(self) -> str:
        return self.data.decode("utf-16-le", "replace").split("\0")[0]

    @property
    def texts(self) -> list[str]:
        return [part for part in self.data.decode("utf-16-le", "replace").split("\0") if part]

    @property
    def number(self) -> int:
        return int.from_bytes(self.data[:4], "little")


def sz(text: str) -> Value:
    return Value(Kind.SZ, _ended(text))


def expand_sz(text: str) -> Value:
    return Value(Kind.EXPAND_SZ, _ended(text))


def multi_sz(*texts: str) -> Value:
    return Value(Kind.MULTI_SZ, b"".join(map(_ended, texts)) + b"\0\0")


def dword(number: int) -> Value:
    return Value(Kind.DWORD, struct.pack("<I", number))


def binary(data: bytes) -> Value:
    return Value(Kind.BINARY, data)


def _ended(text: str) -> bytes:
    return text.encode("utf-16-le") + b"\0\0"


class Hive:
    """Keys are paths with backslashes from the root of the hive; they and the names of values know no case."""

    def __init__(self, content: bytes, path: str) -> None:
        """`path` is for messages. Raises `UnsupportedGuest` where the hive is damaged, or was in use."""
        self._path = path
        _refuse_unclean(content, path)
        self._content = content
        self._changed = False
        with tempfile.TemporaryDirectory(prefix="wavelift-hive-") as scratch:
            file = Path(scratch) / "hive"
            file.write_bytes(content)
            with _damage(path):
                # Opened for writing, the file is read into memory as a whole.
                self._hive: Any = load(_BINDING, "python3-hivex").Hivex(str(file), write=True)
                self._root: int = self._hive.root()

    def has(self, key: str) -> bool:
        return self._node(key) is not None

    def keys(self, key: str) -> list[str]:
        """The names of the keys in one, in the hive's order; none where there is no such key."""
        node = self._node(key)
        with _damage(self._path):
            return [self._hive.node_name(each) for each in self._hive.node_children(node)] if node is not None else []

    def get(self, key: str, name: str) -> Value | None:
        # Not hivex's own look-up, whose "there is none" cannot be told from a failure.
        return next((value for each, value in self.values(key).items() if each.lower() == name.lower()), None)

    def values(self, key: str) -> dict[str, Value]:
        node = self._node(key)
        with _damage(self._path):
            handles = self._hive.node_values(node) if node is not None else []
            return {self._hive.value_key(each): Value(*self._hive.value_value(each)) for each in handles}

    def text(self, key: str, name: str) -> str:
        """Empty where there is no such value, or where it is no text."""
        value = self.get(key, name)
        return value.text if value is not None and value.kind in (Kind.SZ, Kind.EXPAND_SZ) else ""

    def number(self, key: str, name: str) -> int | None:
        value = self.get(key, name)
        return value.number if value is not None and value.kind == Kind.DWORD else None

    def set(self, key: str, name: str, value: Value) -> None:
        """With all keys on the way. The default value of a key has the name ''."""
        if self.get(key, name) == value:
            return
        with _damage(self._path):
            node = self._made(key)
            self._hive.node_set_value(node, {"key": name, "t": int(value.kind), "value": value.data})
        self._changed = True

    def content(self) -> bytes:
        if not self._changed:
            return self._content
        with tempfile.TemporaryDirectory(prefix="wavelift-hive-") as scratch:
            target = Path(scratch) / "hive"
            with _damage(self._path):
                self._hive.commit(str(target))
            return target.read_bytes()

    def _node(self, key: str) -> int | None:
        node: int | None = self._root
        with _damage(self._path):
            for part in _parts(key):
                node = self._hive.node_get_child(node, part) if node is not None else None
        return node

    def _made(self, key: str) -> int:
        node = self._root
        for part in _parts(key):
            child = self._hive.node_get_child(node, part)
            node = child if child is not None else self._hive.node_add_child(node, part)
        return node


def _parts(key: str) -> list[str]:
    return [part for part in key.split("\\") if part]


def _refuse_unclean(content: bytes, path: str) -> None:
    if len(content) < _BASE_BLOCK or content[:4] != b"regf":
        raise UnsupportedGuest(f"{path} is no registry hive", _DAMAGED)
    words = struct.unpack("<127I", content[:508])
    checksum = 0
    for word in words:
        checksum ^= word
    # Two values are set apart for what they would mean elsewhere.
    checksum = {0: 1, 0xFFFFFFFF: 0xFFFFFFFE}.get(checksum, checksum)
    if checksum != struct.unpack_from("<I", content, 508)[0]:
        raise UnsupportedGuest(f"{path} is damaged: the checksum of its header is wrong", _DAMAGED)
    first, second = words[1:3]
    if first != second:
        raise UnsupportedGuest(
            f"{path} was being written (sequence numbers {first} and {second}): part of it is in its log files", _DIRTY
        )


class _damage:
    """What hivex cannot read is damaged."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RuntimeError | OSError | ValueError | UnicodeError):
            raise UnsupportedGuest(f"{self._path} is damaged: {error}", _DAMAGED) from error
