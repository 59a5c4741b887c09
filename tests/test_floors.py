"""The house: imports run to lower floors only, in no circle, and each library stays in its rooms.

The sources are read, never imported, so imports inside functions and under TYPE_CHECKING count.
"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

FLOORS = (
    ("names",),
    ("config", "records", "progress", "interrupts", "forks", "public_files"),
    ("plugins",),
    ("extras", "losses", "resources", "storage"),
    ("cluster", "tables", "tracking"),
    ("datasets", "models"),
    ("evaluation", "inference"),
    ("candidates", "train"),
    ("teachers",),
    ("synthesis",),
    ("groups", "runs"),
    ("stages",),
    ("recipe",),
    ("sweep",),
    ("commands",),
    ("program",),
    ("__main__",),
    ("jobs",),
)
"""Rooms of raypipe from the ground up. Rooms of one floor do not import each other."""

FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS, start=1) for room in rooms}

ONLY_IN = {
    "ray": [
        *("raypipe/cluster.py", "raypipe/resources.py", "raypipe/storage/claims.py"),
        "raypipe/tables/chunks.py",
        *("raypipe/forks/*", "raypipe/storage/keys.py"),
        *("raypipe/tracking/relay.py", "raypipe/inference/*", "raypipe/candidates/*"),
        *("raypipe/teachers/*", "raypipe/groups/*", "raypipe/runs/*", "raypipe/stages/*"),
        *("raypipe/sweep/*", "raypipe/commands/*", "jobs/benchmark.py"),
    ],
    "mlflow": ["raypipe/tracking/*"],
    "ir_datasets": ["raypipe/datasets/ir.py"],
    "ir_measures": ["raypipe/evaluation/measures.py"],
}

HEAVY = ["ray", "transformers", "mlflow", "ir_datasets", "bm25s", "torch.distributed.tensor"]

SAME_NAME = {
    "artifacts": "what they are, and the command that lists, verifies and prunes them",
    "base": "the contract of a package's choices",
    "bi_encoder": "the model, and the teacher that uses it",
    "checks": "of models, and of whole recipes before work",
    "cross_encoder": "the model, and the teacher that uses it",
    "doctor": "what the command does, and its command line",
    "evaluate": "what the command does, and its command line",
    "explain": "what the command does, and its command line",
    "export": "what the command does, and its command line",
    "mine": "what the command does, and its command line",
    "listwise": "losses over lists, and what a language model is asked about lists",
    "paper": "what the command does, and its command line",
    "names": "made safe for any place, and what MLflow accepts",
    "pairwise": "losses over pairs, and what a language model is asked about pairs",
    "pointwise": "losses over documents, and what a language model is asked about documents",
    "rankgpt": "its lists as candidates, and its orders as a teacher",
    "rerank": "the runs of recipes, and the command line on own runs",
    "report": "the command that reports tracked jobs; the other is the package of the report",
    "search": "of an index, and the command that searches settings",
    "source": "what a recipe names, of each index",
    "synthesize": "what the command does, and its command line",
    "trec_run": "the file format, and the source of candidates that reads it",
}
"""Modules of one name: why their folders say the difference."""


def module_of(path: str) -> str:
    """raypipe/train/loop.py is raypipe.train.loop, raypipe/train/__init__.py raypipe.train."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported(path: str, source: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import; relative ones resolved, `from a import b` as a.b."""
    package = module_of(path).split(".")
    package = package if path.endswith("/__init__.py") else package[:-1]
    for node in ast.walk(ast.parse(source, path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def room_of(module: str) -> str | None:
    """The room that a module stands in; None outside raypipe and jobs."""
    top, _, below = module.partition(".")
    if top == "jobs":
        return "jobs"
    return below.partition(".")[0] or None if top == "raypipe" else None


def problems(path: str, source: str) -> list[str]:
    """What is wrong with the imports of one file, each with its place and the rule."""
    room = room_of(module_of(path))
    if room is not None and room not in FLOOR_OF:
        return [f"{path}: {room!r} stands on no floor; add it to FLOORS"]
    wrong = []
    for line, name in imported(path, source):
        place, library, other = f"{path}:{line}", name.partition(".")[0], room_of(name)
        if other in FLOOR_OF and other != room and FLOOR_OF[other] >= FLOOR_OF.get(room or "", 0):
            floors = f"{room} (floor {FLOOR_OF.get(room or '', 0)}) imports {other}"
            wrong.append(f"{place}: {floors} ({FLOOR_OF[other]}); imports go to lower floors only")
        if library in ONLY_IN and not any(fnmatch(path, rooms) for rooms in ONLY_IN[library]):
            wrong.append(f"{place}: {library} belongs in {' or '.join(ONLY_IN[library])}")
    return wrong


@functools.cache
def sources() -> dict[str, str]:
    """Every Python file of raypipe and jobs with its text."""
    paths = [*(ROOT / "raypipe").rglob("*.py"), *(ROOT / "jobs").rglob("*.py")]
    return {p.relative_to(ROOT).as_posix(): p.read_text("utf-8") for p in sorted(paths)}


def arrows(files: Mapping[str, str]) -> dict[str, set[str]]:
    """The modules among these files that each of them imports."""
    modules = {module_of(path): path for path in files}
    found: dict[str, set[str]] = defaultdict(set)
    for module, path in modules.items():
        for _, name in imported(path, files[path]):
            target = name if name in modules else name.rpartition(".")[0]
            if target in modules and target != module:
                found[module].add(target)
    return found


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Modules that import each other in a loop, one path per loop that a walk meets."""
    found, settled = [], set()

    def walk(module: str, path: list[str]) -> None:
        if module in path:
            found.append([*path[path.index(module) :], module])
        elif module not in settled:
            for target in sorted(graph.get(module, ())):
                walk(target, [*path, module])
            settled.add(module)

    for module in sorted(graph):
        walk(module, [])
    return found


@pytest.mark.parametrize("path", sources())
def test_imports(path):
    assert problems(path, sources()[path]) == []


def test_no_modules_import_each_other_in_a_circle():
    assert circles(arrows(sources())) == []


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({"raypipe/a.py": "import raypipe.b", "raypipe/b.py": "from raypipe import a"}, 1),
        ({"raypipe/x/a.py": "from . import b", "raypipe/x/b.py": "from raypipe.x.a import A"}, 1),
        ({"raypipe/a.py": "def f():\n    import raypipe.b", "raypipe/b.py": "import raypipe.a"}, 1),
        ({"raypipe/a.py": "import raypipe.b", "raypipe/b.py": "import raypipe.c"}, 0),
    ],
)
def test_a_circle_is_found(files, count):
    assert len(circles(arrows(files))) == count


def test_a_class_name_means_one_class():
    homes = defaultdict(list)
    for path, source in sources().items():
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(path)
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def test_a_module_name_means_one_module_or_the_folders_say_the_difference():
    homes = defaultdict(list)
    for path in sources():
        if path.startswith("raypipe/") and "/__" not in path:
            homes[Path(path).stem].append(path)
    assert {name for name, paths in homes.items() if len(paths) > 1} <= SAME_NAME.keys()


@pytest.mark.parametrize(
    ("path", "source", "rule"),
    [
        ("raypipe/config.py", "from raypipe.inference import pairs", "lower floors"),
        ("raypipe/datasets/x.py", "from raypipe.evaluation.ranking import Ranking", "lower floors"),
        ("raypipe/datasets/x.py", "from raypipe import sweep", "lower floors"),
        ("raypipe/datasets/x.py", "from ..train import loop", "lower floors"),
        ("raypipe/losses/__init__.py", "from ..models import backbone", "lower floors"),
        ("raypipe/train/x.py", "def f():\n    import raypipe.recipe.experiment", "lower floors"),
        ("raypipe/train/x.py", "from raypipe.candidates.fused import Fused", "lower floors"),
        ("raypipe/sweep/x.py", "import raypipe.commands.job", "lower floors"),
        ("raypipe/sweep/x.py", "from jobs.train import main", "lower floors"),
        ("raypipe/__init__.py", "from raypipe.config import Config", "lower floors"),
        ("raypipe/utils.py", "", "no floor"),
        ("raypipe/losses/x.py", "import ray", "belongs in"),
        ("raypipe/tables/x.py", "import ray", "belongs in"),
        ("raypipe/train/loop.py", "if TYPE_CHECKING:\n    from ray.data import D", "belongs in"),
        ("raypipe/sweep/x.py", "import mlflow.pyfunc", "belongs in"),
        ("jobs/x.py", "from ir_datasets import load", "belongs in"),
        ("raypipe/datasets/x.py", "import ir_measures", "belongs in"),
    ],
)
def test_a_wrong_import_is_caught(path, source, rule):
    (problem,) = problems(path, source)
    assert rule in problem


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("raypipe/stages/stage.py", "import ray\nfrom . import worker\nfrom .output import x"),
        ("raypipe/train/__init__.py", "from raypipe.train.loop import train"),
        ("raypipe/datasets/ir.py", "import ir_datasets\nfrom raypipe.config import digest"),
        ("raypipe/losses/x.py", "import raymond"),
        ("jobs/sweep.py", "from raypipe import __version__\nfrom raypipe.commands import compare"),
    ],
)
def test_a_right_import_passes(path, source):
    assert problems(path, source) == []


@functools.cache
def loaded(statement: str) -> list[str]:
    """The modules that a fresh interpreter has after a statement."""
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_recipe_imports_no_heavy_library():
    assert not set(HEAVY) & set(loaded("import raypipe.recipe.experiment"))


def test_a_report_is_written_without_training_and_without_ray():
    assert not {*HEAVY, "torch", "scipy"} & set(loaded("import raypipe.commands.report"))


@pytest.mark.parametrize(("module", "most"), [("loop", 50), ("optim", 20)])
def test_training_knows_nothing_of_mining(module, most):
    ours = [name for name in loaded(f"import raypipe.train.{module}") if name.startswith("raypipe")]
    assert len(ours) <= most
    assert not {room_of(name) for name in ours} & {"tables", "groups", "evaluation"}
    assert "ray" not in loaded(f"import raypipe.train.{module}")


def test_the_map_shows_every_room():
    """docs/architecture.md names each room once, on the line of its floor."""
    rows = (ROOT / "docs" / "architecture.md").read_text("utf-8").splitlines()
    shown = {
        room: number
        for row in rows
        if (cells := [cell.strip() for cell in row.split("|")])[1:2] and cells[1].isdigit()
        for number in [int(cells[1])]
        for room in cells[2].replace("`", "").split(", ")
    }
    assert shown == FLOOR_OF
