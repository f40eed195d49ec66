"""Airflow DAGs of all waves: one per manifest."""

from airflow.sdk import get_parsing_context

from operators.dag import build_wave_dag, load_all, manifests_folder, wave_dag_id
from wavelift.manifest.load import ManifestError

wanted = get_parsing_context().dag_id

for _path, manifest in load_all(manifests_folder()):
    if not isinstance(manifest, ManifestError) and wanted in (None, wave_dag_id(manifest)):
        dag = build_wave_dag(manifest)
        globals()[dag.dag_id] = dag
