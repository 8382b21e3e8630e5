"""What runs on Ray: the driver, the trials, progress and results. Imports no Airflow; this module imports no Ray."""
