"""Backends by name: those of this package, one of another's, and such as cannot be loaded."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from operators.provider import get_provider_info
from storage_backends.errors import BackendError
from storage_backends.registry import (
    BrokenBackend,
    UnknownBackend,
    backend_names,
    backend_type,
    backend_types,
    open_backend,
)

OURS = ["alibaba", "memory", "offline", "oss"]
TAPES = """
from storage_backends.builtin import MEMORY
from storage_backends.archives.memory import MemoryBackend
from storage_backends.plugin import BackendType, Field, Form

FORM = Form("Acme: tapes", (Field("robot_password", "Robot", secret=True),), login="Operator")
BACKEND = BackendType(FORM, lambda fields, region, zone: MemoryBackend(fields.connection_id, None))
NOTHING = 1
"""
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Another package, as pip leaves it: modules and what it says of itself."""

    def made(package: str, code: str = "", **backends: str) -> None:
        site = tmp_path / package
        about = site / f"{package}-1.0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        points = "".join(f"{name} = {value}\n" for name, value in backends.items())
        (about / "entry_points.txt").write_text(f"[wavelift.storage_backends]\n{points}")
        (site / f"{package}.py").write_text(code)
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, package, raising=False)

    return made


def test_ours_are_found_by_their_entry_points() -> None:
    assert backend_names() == OURS and list(backend_types()) == OURS


def test_an_unknown_one_names_those_that_are_installed() -> None:
    with pytest.raises(UnknownBackend, match="'tape'; installed are: alibaba, memory, offline, oss") as caught:
        open_backend("tape", connection_id="c", login="", password="", extra={})
    assert caught.value.installed == OURS and caught.value.remedy


def test_another_package_brings_one_with_its_connection_type(install: Install) -> None:
    install("acme_tapes", TAPES, tapes="acme_tapes:BACKEND")
    assert backend_names() == [*OURS, "tapes"]
    opened = open_backend("tapes", connection_id="c-tapes", login="", password="", extra={})
    try:
        opened.check_access()
    finally:
        opened.close()  # type: ignore[attr-defined]
    (found,) = [each for each in get_provider_info()["connection-types"] if each["connection-type"] == "wavelift_tapes"]
    assert found["hook-name"] == "Acme: tapes" and found["hook-class-name"] == "operators.hooks.wavelift_tapes"
    assert found["conn-fields"]["robot_password"]["schema"]["format"] == "password"
    assert found["ui-field-behaviour"]["relabeling"] == {"login": "Operator"}
    assert "password" in found["ui-field-behaviour"]["hidden-fields"]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("acme_tapes:MISSING", "AttributeError"),
        ("acme_nowhere:BACKEND", "ModuleNotFoundError: No module named 'acme_nowhere'"),
        ("acme_tapes:NOTHING", "it is a int, not a BackendType"),
    ],
)
def test_a_broken_one_is_named_and_spares_the_others(
    install: Install, caplog: pytest.LogCaptureFixture, value: str, why: str
) -> None:
    install("acme_tapes", TAPES, tapes=value)
    with caplog.at_level(logging.WARNING):
        assert list(backend_types()) == OURS
    assert "tapes of the package acme_tapes cannot be loaded" in caplog.text
    with pytest.raises(BrokenBackend, match=why) as caught:
        backend_type("tapes")
    assert (caught.value.package, caught.value.value) == ("acme_tapes", value)
    assert isinstance(caught.value, BackendError) and "acme_tapes" in caught.value.remedy
    assert backend_type("oss").form.title


def test_a_module_that_fails_in_any_way_is_a_broken_one(install: Install) -> None:
    install("acme_tapes", "raise RuntimeError('no robot here')", tapes="acme_tapes:BACKEND")
    with pytest.raises(BrokenBackend, match="RuntimeError: no robot here"):
        backend_type("tapes")


def test_one_name_of_two_packages_is_nobodys(install: Install) -> None:
    install("acme_buckets", TAPES, oss="acme_buckets:BACKEND")
    with pytest.raises(BrokenBackend, match="more than one package brings that name") as caught:
        backend_type("oss")
    assert "acme_buckets" in caught.value.package and "wavelift" in caught.value.package
    assert "memory" in backend_types() and "oss" not in backend_types()
