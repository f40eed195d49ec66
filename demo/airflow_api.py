"""The few calls of Airflow's REST API that the demo makes, as anybody else would make them."""

from __future__ import annotations

import time
from typing import Any

import httpx

_CHANGE_SECONDS = 60.0


class AirflowApi:
    """Signs in with user and password; every call raises httpx.HTTPStatusError with Airflow's own words."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=30.0, trust_env=False)
        answer = self._http.post("/auth/token", json={"username": user, "password": password})
        answer.raise_for_status()
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def get(self, path: str, **params: Any) -> Any:
        answer = self._http.get(f"/api/v2{path}", params=params)
        answer.raise_for_status()
        return answer.json()

    def find(self, path: str, **params: Any) -> Any | None:
        """Like get, None for 404."""
        answer = self._http.get(f"/api/v2{path}", params=params)
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        return answer.json()

    def page(self, path: str, *, signed_in: bool = True) -> httpx.Response:
        """A page outside the API, as a browser would get it."""
        if signed_in:
            return self._http.get(path)
        return httpx.get(f"{self.url}{path}", trust_env=False)

    def set_connection(self, connection: dict[str, Any]) -> None:
        """Create it, or replace what is there."""
        answer = self._change("POST", "/connections", connection)
        if answer.status_code == 409:
            answer = self._change("PATCH", f"/connections/{connection['connection_id']}", connection)
        answer.raise_for_status()

    def wait_for_dag(self, dag_id: str, seconds: float = 120.0) -> None:
        """Until Airflow has parsed it. Raises TimeoutError with Airflow's import errors."""
        deadline = time.monotonic() + seconds
        while self.find(f"/dags/{dag_id}") is None:
            if time.monotonic() > deadline:
                errors = self.get("/importErrors")["import_errors"]
                reasons = "\n".join(error["stack_trace"] for error in errors) or "no import error is reported"
                raise TimeoutError(f"Airflow has no DAG {dag_id} after {seconds:.0f} s: {reasons}")
            time.sleep(0.5)

    def trigger(self, dag_id: str, run_id: str) -> None:
        """Start a run; nothing happens where a run of that id is there already."""
        answer = self._change("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": None, "dag_run_id": run_id})
        if answer.status_code != 409:
            answer.raise_for_status()

    def _change(self, method: str, path: str, body: dict[str, Any]) -> httpx.Response:
        """Repeat a change that the server failed at: on SQLite one of two at the same moment does (decision 6)."""
        deadline = time.monotonic() + _CHANGE_SECONDS
        while True:
            answer = self._http.request(method, f"/api/v2{path}", json=body)
            if answer.status_code < 500 or time.monotonic() > deadline:
                return answer
            time.sleep(1.0)

    def run_state(self, dag_id: str, run_id: str) -> str | None:
        run = self.find(f"/dags/{dag_id}/dagRuns/{run_id}")
        return str(run["state"]) if run else None

    def tasks(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """By task id, the task instances of a run; empty while there is no such run."""
        found = self.find(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", limit=100)
        return {each["task_id"]: each for each in found["task_instances"]} if found else {}

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any | None:
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        found = self.find(path, deserialize=False, stringify=False)
        return found["value"] if found else None

    def error_of(self, dag_id: str, run_id: str, task_id: str, attempt: int) -> str:
        """The error lines of a failed attempt, from its log."""
        log = self.get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{attempt}", full_content=True)
        messages = []
        for entry in log["content"]:
            if not isinstance(entry, dict):
                continue
            details = entry.get("error_detail") or []
            messages += [str(each.get("exc_value", "")) for each in details]
        return "\n".join(messages[:1]) or "no error in the log"
