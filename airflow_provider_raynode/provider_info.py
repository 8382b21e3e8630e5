"""What Airflow's provider manager reads of this package: imported in every Airflow process, so it imports nothing."""

from __future__ import annotations

from typing import Any

from airflow_provider_raynode import __version__

_RAY_CONNECTION: dict[str, Any] = {
    "connection-type": "ray",
    "hook-class-name": "airflow_provider_raynode.hooks.ray.RayHook",
    "hook-name": "Ray",
    "ui-field-behaviour": {
        "hidden-fields": ["login", "schema", "extra"],
        "relabeling": {"host": "Address", "port": "Port", "password": "Token"},
        "placeholders": {
            "host": "https://ray.example.com, ray://head:10001, auto or local",
            "port": "8265, or 0 where the address has it: Airflow's Test needs a number here",
            "password": "Ray's authentication token (ray get-auth-token)",
        },
    },
    "conn-fields": {
        "dashboard_port": {
            "label": "Dashboard port",
            "description": "Port of the Ray dashboard for an address like ray://head:10001; 8265 if empty",
            "schema": {"type": ["integer", "null"], "minimum": 1, "maximum": 65535},
        },
        "secret_headers": {
            "label": "HTTP headers",
            "description": 'JSON object of headers for a proxy before the cluster, {"X-Api-Key": "..."}; kept secret',
            "schema": {"type": ["string", "null"], "format": "password"},
        },
        "verify_tls": {
            "label": "Verify TLS",
            "description": "Verify the certificate of an https address",
            "schema": {"type": "boolean", "default": True},
        },
        "ca_file": {
            "label": "CA file",
            "description": "Path, on Airflow's machines, of the PEM file of the authority that signed the certificate",
            "schema": {"type": ["string", "null"]},
        },
        "catalog": {
            "label": "Catalog",
            "description": "URI of the catalog that this cluster reaches, s3://bucket/prefix; Airflow's own if empty",
            "schema": {"type": ["string", "null"]},
        },
        "runtime_env": {
            "label": "Runtime environment",
            "description": "JSON object, Ray's runtime_env of every job unless its config says otherwise; no secrets",
            "schema": {"type": ["object", "null"]},
        },
    },
}


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, in the shape of Airflow's `provider_info.schema.json`."""
    return {
        "package-name": "airflow-provider-raynode",
        "name": "Ray node",
        "description": "Ray as one composite node in an Airflow DAG: fan-out, execution, fan-in",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": "Ray",
                "external-doc-url": "https://docs.ray.io/en/latest/",
                "tags": ["software"],
            }
        ],
        "hooks": [{"integration-name": "Ray", "python-modules": ["airflow_provider_raynode.hooks.ray"]}],
        "operators": [
            {
                "integration-name": "Ray",
                "python-modules": [
                    "airflow_provider_raynode.operators.fan_in",
                    "airflow_provider_raynode.operators.fan_out",
                    "airflow_provider_raynode.operators.submit_job",
                    "airflow_provider_raynode.operators.task",
                    "airflow_provider_raynode.operators.train",
                    "airflow_provider_raynode.operators.tune",
                ],
            }
        ],
        "task-decorators": [{"name": "ray", "class-name": "airflow_provider_raynode.decorators.ray.ray_task"}],
        "connection-types": [_RAY_CONNECTION],
        "extra-links": ["airflow_provider_raynode.links.ray_job.RayJobLink"],
        "triggers": [
            {"integration-name": "Ray", "python-modules": ["airflow_provider_raynode.triggers.ray_job"]},
        ],
        "cli": ["airflow_provider_raynode.cli_definition.get_raynode_cli_commands"],
        "config": {
            "raynode": {
                "description": "Ray as one composite node.",
                "options": {
                    "catalog": {
                        "description": (
                            "URI of the catalog, where inputs, results and outputs of the nodes are kept: a folder or "
                            "a fsspec URI like s3://bucket/prefix. Default: the folder raynode_catalog in AIRFLOW_HOME."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://bucket/raynode",
                        "default": None,
                    },
                    "deferrable": {
                        "description": (
                            "Whether a node on a cluster waits for its job in the triggerer, where neither the node "
                            "nor the environment variable AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE says it."
                        ),
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": None,
                        "default": "True",
                    },
                    "trusted_catalogs": {
                        "description": (
                            "Comma-separated URIs of further catalogs whose pickles may be loaded here, beside the "
                            "running task's own."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://team-a/raynode, s3://team-b/raynode",
                        "default": None,
                    },
                },
            }
        },
    }
