"""Airflow plugin: the boot evidence of a migration as a page, for whoever may see its DAG."""

from __future__ import annotations

import html
import json

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import auth_manager_from_app, requires_access_dag
from airflow.plugins_manager import AirflowPlugin
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.responses import FileResponse, HTMLResponse

from operators.evidence import FILES, URL_PREFIX, evidence_folder
from operators.run import run_name

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Boot evidence of {dag}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}}
img{{max-width:100%;border:1px solid #999}}pre{{background:#111;color:#ddd;padding:1rem;overflow:auto;max-height:30rem}}
td,th{{padding:.3rem .8rem;text-align:left;border-bottom:1px solid #ccc}}</style>
<h1>{dag}</h1><p>Run {run}</p>
<table><tr><th>check</th><th>result</th><th>what was seen</th></tr>{rows}</table>
<h2>Screen</h2><img src="screenshot.png" alt="screen of the instance">
<h2>Console</h2><pre>{console}</pre></html>"""

router = APIRouter(dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.RUN))])


@router.get("/evidence/{dag_id}/{run_id}/")
def page(dag_id: str, run_id: str) -> HTMLResponse:
    """Checks, screen and console in one page."""
    folder = evidence_folder(run_name(dag_id, run_id))
    if not (folder / "checks.json").exists():
        raise HTTPException(404, f"Run {run_id} of {dag_id} has no boot evidence yet.")
    checks = json.loads((folder / "checks.json").read_text(encoding="utf-8"))["results"]
    rows = "".join(
        f"<tr><td>{html.escape(each['check'])}</td><td>{'holds' if each['passed'] else '<b>does not hold</b>'}</td>"
        f"<td>{html.escape(each['evidence'])}</td></tr>"
        for each in checks
    )
    console = html.escape((folder / "console.txt").read_text(encoding="utf-8"))
    return HTMLResponse(_PAGE.format(dag=html.escape(dag_id), run=html.escape(run_id), rows=rows, console=console))


@router.get("/evidence/{dag_id}/{run_id}/{name}")
def file(dag_id: str, run_id: str, name: str) -> FileResponse:
    """One of the files."""
    path = evidence_folder(run_name(dag_id, run_id)) / name
    if name not in FILES or not path.exists():
        raise HTTPException(404, f"Run {run_id} of {dag_id} has no {name}.")
    return FileResponse(path)


app = FastAPI(title="Wavelift", docs_url=None, redoc_url=None, openapi_url=None)
# The mounted app has no auth manager of its own; without this every access check is an error.
app.dependency_overrides[auth_manager_from_app] = get_auth_manager
app.include_router(router)


class WaveliftPlugin(AirflowPlugin):
    """Registers the page under /wavelift."""

    name = "wavelift"
    fastapi_apps = [{"app": app, "url_prefix": URL_PREFIX, "name": "Wavelift"}]
