"""Airflow DAGs of all migrations: one per migration of every manifest, and one that explains each broken manifest."""

from airflow.sdk import get_parsing_context

from operators.dag import (
    build_invalid_dag,
    build_migration_dag,
    load_all,
    manifests_folder,
    migration_dag_id,
)
from wavelift.manifest.load import ManifestError

wanted = get_parsing_context().dag_id

for path, manifest in load_all(manifests_folder()):
    if isinstance(manifest, ManifestError):
        dag = build_invalid_dag(path, manifest)
        globals()[dag.dag_id] = dag
        continue
    for migration in manifest.migrations:
        # A starting task needs only its own DAG; building a thousand others would delay it by seconds.
        if wanted in (None, migration_dag_id(manifest, migration)):
            dag = build_migration_dag(manifest, migration)
            globals()[dag.dag_id] = dag
