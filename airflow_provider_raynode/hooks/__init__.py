"""How Airflow reaches a Ray cluster and the catalog: the hooks."""
