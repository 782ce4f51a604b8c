"""Where caches lie."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``PERPIXEL_CACHE``, else ``perpixel`` in the user's cache folder. Deleting it is always safe."""
    named = os.environ.get("PERPIXEL_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perpixel"
