"""The fuzz tests find the same examples each time, so that a red run is the change's own.

RAYNODE_FUZZ=random looks anew.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
settings.register_profile("random", derandomize=False)
settings.load_profile("random" if os.environ.get("RAYNODE_FUZZ") == "random" else "repeatable")
