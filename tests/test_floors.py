"""Imports run to lower floors only, and each library stays where it belongs.

The sources are read, never imported, so imports inside functions and under TYPE_CHECKING count.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# module or package of raypipe: floor. DESIGN has artifacts on floor 2; it stands half a floor lower
# because models and every job are steps, `cache` below it because an artifact knows its copy,
# `files` below that because tracking needs a home as well, `progress` below that because it is
# files that are read.
FLOORS = {
    "config": 1,
    "records": 1,
    "progress": 1.25,
    "files": 1.5,
    "cache": 1.6,
    "artifacts": 1.75,
    "resources": 2,
    "claims": 2,
    "tracking": 2,
    "judging": 5.5,
    "space": 5.5,
    "losses": 2,
    "models": 2,
    "data": 3,
    "evaluation": 3,
    "inference": 4,
    "sources": 5,
    "teachers": 5,
    "train": 6,
    "training_set": 5.5,
    "experiment": 7,
    "sweep": 8,
    "job": 8,
    "jobs": 9,
}

WITHOUT_RAY = [
    "raypipe/config.py",
    "raypipe/records.py",
    "raypipe/losses/*",
    "raypipe/models/*",
    "raypipe/data/*",
    "raypipe/evaluation/*",
    "raypipe/inference/llm/http.py",  # requests go out while models hold every CPU of the cluster
    "raypipe/inference/llm/http_client.py",
    "raypipe/train/batches.py",
    "raypipe/train/optim.py",
    "raypipe/train/loop.py",
    "raypipe/train/settings.py",
    "raypipe/train/validation.py",
    "raypipe/train/alarms.py",
    "raypipe/train/curve.py",
    "raypipe/train/drift.py",
    "raypipe/train/filtering.py",
    "raypipe/train/predictor.py",
    "raypipe/train/schedules.py",
    "raypipe/train/parallel.py",
    "raypipe/train/gradients.py",
    "raypipe/train/selection.py",
    "raypipe/train/skipping.py",
    "raypipe/train/snapshot.py",
    "raypipe/train/checkpoint.py",
    "raypipe/train/outcome.py",
    "raypipe/train/output.py",
]

ONLY_IN = {
    "mlflow": ["raypipe/tracking/*"],
    "ir_datasets": ["raypipe/data/collection.py", "raypipe/data/ir.py"],
    "ir_measures": ["raypipe/evaluation/measures.py"],
}

HEAVY = ["ray", "transformers", "mlflow", "ir_datasets", "bm25s", "torch.distributed.tensor"]


def imported(path: str, source: str) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import; relative ones resolved, `from a import b` as a.b."""
    package = path.removesuffix("/__init__.py").removesuffix(".py").split("/")
    package = package if path.endswith("/__init__.py") else package[:-1]
    for node in ast.walk(ast.parse(source, path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def unit(parts: list[str]) -> str | None:
    """The module or package that has a floor: raypipe/train/loop.py is `train`."""
    if parts[0] == "jobs":
        return "jobs"
    return parts[1] if parts[0] == "raypipe" and len(parts) > 1 else None


def problems(path: str, source: str) -> list[str]:
    """What is wrong with the imports of one file, each with its place and the rule."""
    me = unit(path.removesuffix(".py").removesuffix("/__init__").split("/"))
    if me is not None and me not in FLOORS:
        return [f"{path}: {me!r} has no floor; add it to FLOORS"]
    found = []
    for line, name in imported(path, source):
        where, root = f"{path}:{line}", name.partition(".")[0]
        other = unit(name.split("."))
        if other in FLOORS and other != me and FLOORS[other] >= FLOORS.get(str(me), 0):
            floors = f"{me} (floor {FLOORS.get(str(me), 0)}) imports {other} ({FLOORS[other]})"
            found.append(f"{where}: {floors}; imports go to lower floors only")
        if root == "ray" and _in(path, WITHOUT_RAY):
            found.append(f"{where}: {name} where no cluster is needed")
        if root in ONLY_IN and not _in(path, ONLY_IN[root]):
            found.append(f"{where}: {root} belongs in {' or '.join(ONLY_IN[root])}")
    return found


def _in(path: str, patterns: list[str]) -> bool:
    return any(fnmatch(path, pattern) for pattern in patterns)


def files() -> list[str]:
    found = [*(ROOT / "raypipe").rglob("*.py"), *(ROOT / "jobs").rglob("*.py")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


@pytest.mark.parametrize("path", files())
def test_imports(path):
    assert problems(path, (ROOT / path).read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source", "rule"),
    [
        ("raypipe/config.py", "from raypipe.data import pairs", "lower floors"),
        ("raypipe/data/x.py", "from raypipe.evaluation.ranking import Run", "lower floors"),
        ("raypipe/data/x.py", "from raypipe import sweep", "lower floors"),
        ("raypipe/data/x.py", "from ..train import loop", "lower floors"),
        ("raypipe/losses/__init__.py", "from ..models import backbone", "lower floors"),
        ("raypipe/train/x.py", "def f():\n    import raypipe.experiment", "lower floors"),
        ("raypipe/sweep/x.py", "import raypipe.job", "lower floors"),
        ("raypipe/sweep/x.py", "from jobs.train import main", "lower floors"),
        ("raypipe/__init__.py", "from raypipe.config import Config", "lower floors"),
        ("raypipe/utils.py", "", "no floor"),
        ("raypipe/losses/x.py", "import ray", "no cluster"),
        ("raypipe/train/loop.py", "if TYPE_CHECKING:\n    from ray.data import D", "no cluster"),
        ("raypipe/sweep/x.py", "import mlflow.pyfunc", "belongs in"),
        ("jobs/x.py", "from ir_datasets import load", "belongs in"),
        ("raypipe/data/x.py", "import ir_measures", "belongs in"),
    ],
)
def test_a_wrong_import_is_caught(path, source, rule):
    (problem,) = problems(path, source)
    assert rule in problem


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("raypipe/train/stage.py", "import ray\nfrom . import loop\nfrom .optim import x"),
        ("raypipe/train/__init__.py", "from raypipe.train.loop import train"),
        ("raypipe/data/collection.py", "import ir_datasets\nfrom raypipe.config import digest"),
        ("raypipe/losses/x.py", "import raymond"),
        ("jobs/sweep.py", "from raypipe import __version__\nfrom raypipe.sweep import run"),
    ],
)
def test_a_right_import_passes(path, source):
    assert problems(path, source) == []


def test_experiment_imports_no_heavy_library():
    code = f"import sys, raypipe.experiment; print(*[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
