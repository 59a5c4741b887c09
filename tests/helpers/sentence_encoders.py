"""A backbone as sentence-transformers saves an encoder that averages its tokens' states."""

from __future__ import annotations

import json
import shutil
from pathlib import Path


def as_sentence_encoder(backbone: Path, folder: Path) -> Path:
    """A copy of the backbone in the folder, which is made, with a modules.json."""
    shutil.copytree(backbone, folder)
    modules = [
        {"type": f"sentence_transformers.models.{kind}", "path": f"{i}_{kind}" if i else ""}
        for i, kind in enumerate(("Transformer", "Pooling", "Normalize"))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder
