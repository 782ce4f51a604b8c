"""Models and results of a run or a grid in one zip."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from perpixel.run import Run


def pack_folder(folder: Path, out: Path) -> Path:
    """Zip a run or grid folder; ``last.safetensors``, which only a continuation needs, is left out."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    left_out = {Run(folder).last_path.name, out.name, partial.name}
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file() and path.name not in left_out and not path.name.startswith("."):
                    archive.write(path, path.relative_to(folder.parent))
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    return out
