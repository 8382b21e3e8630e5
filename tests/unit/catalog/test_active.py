"""Which catalog the module's functions use."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from airflow_provider_raynode import catalog
from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError


def test_use_is_for_this_thread_and_set_active_for_all(tmp_path: Path) -> None:
    here, everywhere = Catalog(str(tmp_path / "here")), Catalog(str(tmp_path / "everywhere"))
    found: list[Catalog] = []
    catalog.set_active(everywhere)
    try:
        with catalog.use(here):
            thread = threading.Thread(target=lambda: found.append(catalog.active()))
            thread.start()
            thread.join()
            assert catalog.active() is here
            assert catalog.load(catalog.put([1], "x")) == [1]
            assert catalog.get_ref("x").uri.startswith(here.uri)
        assert found == [everywhere]
        assert catalog.active() is everywhere
    finally:
        catalog.set_active(None)


def test_nowhere_is_told() -> None:
    code = (
        "from airflow_provider_raynode import catalog\n"
        "from airflow_provider_raynode.exceptions import CatalogError\n"
        "try: catalog.put(1)\nexcept CatalogError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "there is no catalog here" in done.stdout


def test_at_parse_time_is_told() -> None:
    import airflow.sdk  # noqa: F401

    with pytest.raises(CatalogError, match="not while the DAG file is parsed"):
        catalog.put(1)
