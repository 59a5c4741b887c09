"""Rows of the backbone as it comes: their names, what they read, and which backbones have none."""

from __future__ import annotations

import pytest
from sentence_encoders import as_sentence_encoder

from raypipe.config import ConfigError
from raypipe.evaluation.results import MAIN
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand, untrained_rows
from raypipe.recipe.untrained import check_untrained
from raypipe.sweep.table_rows import baseline_runs

BOTH = "evaluation.untrained=[cosine, fusion]"


@pytest.fixture
def sentence_encoder(tiny_backbone, tmp_path) -> str:
    return str(as_sentence_encoder(tiny_backbone, tmp_path / "encoder"))


def test_rows_stand_beside_the_others_and_say_what_they_are(recipe, tiny_backbone):
    experiment = load(Experiment, recipe, [BOTH])
    names = {name: kind for name, kind, _ in baseline_runs(experiment)}
    assert names == {
        "BM25": "first_stage",
        "teacher: bi-encoder + first stage": "teacher",
        f"{tiny_backbone.name}, cosine, untrained": "zero_shot",
        f"{tiny_backbone.name}, cosine + BM25, untrained": "zero_shot",
        "oracle": "oracle",
    }
    assert not untrained_rows(load(Experiment, recipe))
    given = f"reference={tiny_backbone.name}, cosine, untrained"
    assert expand(load(Experiment, recipe, [BOTH, given]))  # a row that exists


def test_texts_are_read_as_the_teacher_of_the_same_backbone_reads_them(recipe, sentence_encoder):
    """Then the collection is encoded once; the fusion of both may be the teacher itself."""
    experiment = load(Experiment, recipe, [BOTH])
    cosine, fusion = (experiment.untrained_run(how) for how in ("cosine", "fusion"))
    assert fusion.digest == experiment.teacher_run().digest != cosine.digest
    assert cosine.teacher.doc_vectors.digest == fusion.teacher.doc_vectors.digest
    assert experiment.metrics(cosine, MAIN).digest != experiment.metrics(fusion, MAIN).digest
    other = load(Experiment, recipe, [BOTH, f"model.backbone={sentence_encoder}"])
    scorer = other.untrained_run("cosine").teacher.teacher
    assert (scorer.backbone, scorer.max_length) == (sentence_encoder, None)
    assert experiment.untrained_run("cosine").teacher.teacher.max_length == 32


def test_a_backbone_that_is_no_sentence_encoder_is_refused(tiny_backbone, sentence_encoder):
    check_untrained(CrossEncoder(backbone=sentence_encoder))
    with pytest.raises(ConfigError, match=r"evaluation\.untrained: expected a sentence encoder"):
        check_untrained(CrossEncoder(backbone=str(tiny_backbone)))


def test_the_recipe_is_refused_before_work(recipe):
    load(Experiment, recipe).check()
    with pytest.raises(ConfigError, match=r"^evaluation\.untrained: .* without a modules\.json"):
        load(Experiment, recipe, [BOTH]).check()
