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
    width = json.loads((folder / "config.json").read_text())["hidden_size"]
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder
