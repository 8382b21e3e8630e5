"""`python -m airflow_provider_raynode.runtime --spec URI --sha256 HEX`: the constant entrypoint of every node's job."""

from __future__ import annotations

import sys

from airflow_provider_raynode.runtime.driver import main

if __name__ == "__main__":
    sys.exit(main())
