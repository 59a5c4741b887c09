"""Own classes from the current folder through a whole sweep, with a run that exists as a row."""

from __future__ import annotations

import pytest
from own_packages import examples, work_in, write

from raypipe.commands.compare import run
from raypipe.evaluation.results import MAIN
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load

pytestmark = pytest.mark.ray
DECAY = "my_package.measures:Decay(base=3)@10"


def test_loss_sampler_objective_measure_and_run_in_one_table(
    cluster, recipe, tmp_path, monkeypatch
):
    """The cluster was started before anybody allowed the package: workers take the job's word."""
    files, _ = examples()
    write(tmp_path, {"my_package/__init__.py": "", **files})
    lines = [f"q{i} Q0 d{i:03d} 1 1.0 t\n" for i in range(48, 60)]
    (tmp_path / "their.run").write_text("".join(lines))
    work_in(tmp_path, monkeypatch)
    space = "{infonce: {type: infonce}, margin: {type: my_package.losses:Margin, margin: 0.5}}"
    changes = [
        "order=contrastive",
        "teacher=null",
        "stages.contrastive.steps=3",
        "stages.contrastive.validations=1",
        "stages.contrastive.objective=my_package.objectives:Spread",
        "groups.negatives={type: my_package.samplers:EveryNth, count: 3, step: 2}",
        f"evaluation.measures=[nDCG@10, '{DECAY}']",
        "evaluation.rows={theirs: {type: run, path: their.run}}",
        f"sweep.space={{stages.contrastive.loss: {space}}}",
        "reference=theirs",
    ]
    said: list[str] = []
    result = run(load(Experiment, recipe, changes), said.append)
    assert not result.failed
    lines_of = {line.row.name: line for line in result.report.lines[MAIN]}
    assert {"infonce", "margin", "theirs", "BM25", "oracle"} == lines_of.keys()
    assert lines_of["theirs"].means == {"nDCG@10": 1.0, DECAY: 1.0}
    assert set(lines_of["margin"].versus["theirs"]) == {"nDCG@10", DECAY}
    minimised = "my_package.objectives:Spread with my_package.losses:Margin"
    assert lines_of["margin"].row.stages[0].loss == minimised
    for row in ("infonce", "margin"):
        (history,) = result.report.curves[row]
        assert [step for step, _ in history.series["terms/cosine"]] == [1, 2, 3]
    assert any("their.run has 12 of 12 queries of data.test" in line for line in said)
