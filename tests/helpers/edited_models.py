"""Changes of a model's folder, and what checks say of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from raypipe.config import ConfigError

Change = Callable[[Path], object]


def edited(name: str, **fields: Any) -> Change:
    """Sets fields of a JSON file; None deletes one."""

    def edit(folder: Path) -> None:
        path = folder / name
        content = {**(json.loads(path.read_text()) if path.is_file() else {}), **fields}
        path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))

    return edit


def weights(change: Callable[[str, torch.Tensor], torch.Tensor]) -> Change:
    def edit(folder: Path) -> None:
        path = folder / "model.safetensors"
        changed = {name: change(name, value) for name, value in load_file(path).items()}
        save_file(changed, path, metadata={"format": "pt"})

    return edit


def refused(check: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as error:
        check()
    return str(error.value)
