"""Connection types in Airflow: forms, masking and the Test button of every backend that is installed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import oss2
import pytest
from airflow.providers_manager import ProvidersManager
from airflow.sdk._shared.secrets_masker import should_hide_value_for_key
from airflow.sdk.definitions.connection import Connection
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

from operators import hooks
from operators.hooks import BadConnection, backend_of, storage_of
from storage_backends.registry import backend_names, backend_types
from tests.localcloud.conftest import KEY, REGION, SECRET
from wavelift.localcloud.accounts import ACCOUNT
from wavelift.localcloud.server import LocalCloud, Options

MASTER = "0f" * 32


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Extra of a connection to a bucket of a local cloud."""
    with LocalCloud(tmp_path_factory.mktemp("cloud"), {KEY: SECRET}, Options(grace=1.0)) as cloud:
        url = f"http://{cloud.oss_endpoint}"
        oss2.Bucket(oss2.AuthV4(KEY, SECRET), url, "archives", region=REGION, is_path_style=True).create_bucket()
        yield {
            "endpoint": url,
            "region": REGION,
            "bucket": "archives",
            "role_arn": f"acs:ram::{ACCOUNT}:role/archives",
            "sts_endpoint": f"http://{cloud.endpoint}",
            "master_secret": MASTER,
        }


def connection(kind: str, extra: dict[str, Any], password: str = SECRET) -> Connection:
    return Connection(conn_id="c", conn_type=kind, login=KEY, password=password, extra=json.dumps(extra))


def test_each_backend_has_a_form() -> None:
    manager = ProvidersManager()
    for name, found in backend_types().items():
        kind = f"wavelift_{name}"
        behaviour = manager.field_behaviours[kind]
        assert {"host", "port", "schema", "extra"} <= set(behaviour["hidden_fields"])
        assert ("login" in behaviour["hidden_fields"]) == (not found.form.login)
        for field in found.form.fields:
            widget = manager.connection_form_widgets[f"extra__{kind}__{field.name}"]
            assert widget.is_sensitive == field.secret, field
            assert widget.field["schema"]["title"] == field.label
        hook = ProvidersManagerTaskRuntime().hooks[kind]
        assert hook is not None and hook.connection_testable and hook.hook_name == found.form.title


def test_what_is_secret_is_masked_wherever_it_shows() -> None:
    """Airflow goes by the names of fields in logs, in its API and in rendered templates."""
    for name, found in backend_types().items():
        for field in found.form.fields:
            assert should_hide_value_for_key(field.name) == field.secret, (name, field.name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "The backend answers"),
        ({"bucket": "elsewhere"}, "There is no bucket"),
        ({"bucket": ""}, "has no bucket"),
        ({"master_secret": ""}, "has no master key"),
        ({"sts_endpoint": "", "role_arn": ""}, "has no role_arn"),
    ],
)
def test_the_test_button_of_a_bucket(bucket: dict[str, Any], change: dict[str, str], said: str) -> None:
    works, told = connection("wavelift_oss", {**bucket, **change}).test_connection()
    assert works == (not change) and said in told
    assert MASTER not in told and SECRET not in told


def test_the_test_button_says_that_a_key_is_wrong(bucket: dict[str, Any]) -> None:
    works, told = connection("wavelift_oss", bucket, password="not that").test_connection()
    assert not works and "Check the credentials" in told and "not that" not in told


def test_the_test_button_of_folders(tmp_path: Path) -> None:
    works, told = connection("wavelift_offline", {"folders": str(tmp_path), "plain": True}).test_connection()
    assert works, told
    works, told = connection("wavelift_offline", {"folders": f"{tmp_path}/no", "plain": True}).test_connection()
    assert not works and f"{tmp_path}/no" in told


def test_the_type_of_a_connection_names_its_backend(tmp_path: Path) -> None:
    opened = storage_of(connection("wavelift_offline", {"folders": str(tmp_path), "plain": "true"}))
    assert opened.capabilities().carrier == "disks"
    for kind in ("wavelift_agent", "aws", ""):
        with pytest.raises(BadConnection, match="which is none of a storage backend"):
            storage_of(connection(kind, {}))
    with pytest.raises(BadConnection, match="runs no instances"):
        backend_of(connection("wavelift_offline", {"folders": str(tmp_path), "plain": True}), "offline", "", "")


def test_hooks_are_there_for_what_is_installed_only() -> None:
    for name in backend_names():
        made = getattr(hooks, f"wavelift_{name}")
        assert issubclass(made, hooks.BackendHook) and made.conn_type == f"wavelift_{name}"
    with pytest.raises(AttributeError, match="installed are: alibaba"):
        hooks.wavelift_tapes  # noqa: B018
    with pytest.raises(AttributeError):
        hooks.nothing  # noqa: B018
