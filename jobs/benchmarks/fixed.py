"""What a job costs however small it is: a stage of 3 steps, the job again, each further stage."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.mining import JOBS, PACKAGE, ProcessCost, watched, write_collection
from benchmarks.rows import Measured

STAGES = 6
SPLITS = {"train": 64, "validation": 16, "test": 16}


def rows() -> Iterator[Measured]:
    """Whole jobs, from mining to the report, each in a home of its own."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home, "passages")
        write_collection(folder, 2000, SPLITS)
        recipe = write_recipe(folder)
        alone = _job("train.py", recipe, Path(home, "one"))
        yield Measured("job of one stage of 3 steps", "s", alone.seconds)
        yield Measured("job of one stage of 3 steps", "CPU s", alone.cpu_seconds)
        yield Measured("job of one stage of 3 steps", "MB", alone.peak_mb)
        again = _job("train.py", recipe, Path(home, "one"))
        yield Measured("the same job again", "s", again.seconds)
        seeds = f"sweep.space={{seed: {list(range(1, STAGES + 1))}}}"
        sweep = _job("sweep.py", recipe, Path(home, "six"), seeds)
        yield Measured(f"job of {STAGES} stages of 3 steps", "s", sweep.seconds)
        further = (sweep.seconds - alone.seconds) / (STAGES - 1)
        yield Measured("each further stage of 3 steps", "s", further)
        again = _job("sweep.py", recipe, Path(home, "six"), seeds)
        yield Measured(f"the job of {STAGES} stages again", "s", again.seconds)


def _job(script: str, recipe: Path, home: Path, *overrides: str) -> ProcessCost:
    return watched([sys.executable, str(JOBS / script), str(recipe), *overrides], home)


def write_recipe(folder: Path) -> Path:
    """One contrastive stage of 3 steps of 32 pairs."""
    sets = {role: {"dataset": f"beir:{folder}", "split": role} for role in SPLITS}
    recipe = {
        "name": "fixed costs",
        "data": sets,
        "candidates": {"type": "bm25", "depth": 20},
        "groups": {"negatives": {"type": "random_window", "count": 3, "low": 1, "high": 20}},
        "model": {"backbone": PACKAGE, "hidden_dropout": 0.0},
        "truncation": {"type": "longest_first", "max_length": 96},
        "stages": {
            "contrastive": {
                "loss": {"type": "infonce"},
                "queries_per_step": 8,
                "steps": 3,
                "validations": 1,
            }
        },
        "evaluation": {"depth": 10, "validation_depth": 10},
    }
    path = folder / "fixed.yaml"
    path.write_text(json.dumps(recipe, indent=1))
    return path
