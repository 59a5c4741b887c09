"""`{type: dense, of: STAGE}`: lists by a stage's own model, and what is trained before them."""

from __future__ import annotations

import pytest
from hard_recipe import FIRST_STAGE, read_hard

from raypipe.candidates.dense.source import DenseCandidates
from raypipe.config import ConfigError
from raypipe.recipe.list_stages import trained_before
from raypipe.recipe.trials import fixed_rows
from raypipe.stages.stage import Stage


@pytest.fixture
def read(tmp_path, beir_folder, tiny_backbone):
    return lambda *words: read_hard(tmp_path, beir_folder, tiny_backbone, words)


def stages_behind(step) -> set[str]:
    below = [*step.inputs().values(), *step.needs().values()]
    found = set().union(*map(stages_behind, below)) if below else set()
    return found | ({step.stage_name} if isinstance(step, Stage) else set())


def test_negatives_of_a_later_stage_are_found_by_an_earlier_stages_model(read):
    experiment = read("order=vectors -> pairs")
    first, last = experiment.trained().chain()
    lists = experiment.training("pairs").candidates()
    assert isinstance(lists, DenseCandidates) and stages_behind(lists) == {"vectors"}
    assert lists.doc_vectors.weights.digest == first.digest
    assert lists.query_vectors.tokens.prefix == "draft "  # as the model was trained
    assert stages_behind(last.groups) == {"vectors"} and stages_behind(first.groups) == set()
    assert stages_behind(first.validation.candidates) == set()


def test_a_stage_outside_of_the_order_is_trained_alone_for_its_vectors(read):
    experiment = read()
    (only,) = experiment.trained().chain()
    assert experiment.encoders == {"vectors": 0}
    _, encoder = experiment.encoder("vectors")
    assert encoder.chain() == [encoder]
    alone = read("order=vectors").trained()
    assert encoder.digest == alone.digest  # trained once for both
    assert only.start.name == "tiny-bert"  # a re-ranker of its own
    changed = read("stages.vectors.lr=3.0e-4")
    assert changed.trained().digest != only.digest


def test_the_first_stage_may_be_a_stages_model(read):
    experiment = read(*FIRST_STAGE)
    assert fixed_rows(experiment) == ["dense of vectors"]
    _, encoder = experiment.encoder("vectors")
    assert stages_behind(experiment.first_stage("test")) == {"vectors"}
    # the encoder itself trains and is validated on its groups' source
    assert stages_behind(encoder.groups) == set()
    assert stages_behind(encoder.validation.candidates) == set()
    assert stages_behind(experiment.trained().validation.candidates) == {"vectors"}
    assert experiment.for_encoder("vectors").trained().digest == encoder.digest
    in_fusion = read(
        "candidates={type: fused, sources: {bm25: {type: bm25, depth: 20}, "
        "own: {type: dense, of: vectors, depth: 20}}, depth: 20}",
        FIRST_STAGE[1],
    )
    assert stages_behind(in_fusion.first_stage("test")) == {"vectors"}


REFUSED = {
    ("stages.pairs.groups.candidates.of=vector",): r"of=vector: there is no such stage.*'vectors'",
    ("stages.pairs.groups.candidates.of=again",): (
        r"stages\.pairs\.groups\.candidates: of=again: expected a stage of a bi-encoder, found a "
        r"cross_encoder"
    ),
    (FIRST_STAGE[0],): (
        r"candidates: the lists of the stage vectors would be those of vectors, which is not "
        r"trained before it; give stages\.vectors\.groups\.candidates another source"
    ),
    ("order=pairs -> vectors",): (
        r"order: the stage vectors goes on from pairs, which needs lists of the model of vectors; "
        r"give stages\.pairs\.groups\.candidates another source, or let vectors come first"
    ),
    ("candidates={type: dense, depth: 20}",): r"candidates: expected backbone.*found neither",
    ("candidates={type: dense, of: vectors, backbone: x}",): r"candidates: .*found both",
    ("candidates={type: dense, of: vectors, pooling: cls}",): (
        r"candidates\.pooling: the model of the stage vectors says.*stages\.vectors\.model\.pooling"
    ),
    (*FIRST_STAGE, "stages.vectors.groups.candidates.depth=9", "stages.vectors.groups.negatives="
     "{type: top_k, count: 3}"): r"evaluation\.validation_depth: 10 is more than stages\.vectors",
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_is_refused_when_it_is_read(read, words):
    with pytest.raises(ConfigError, match=REFUSED[words]):
        read(*words)


def test_an_order_in_which_each_stage_can_be_trained():
    before = {"c": [("x", "b")], "b": [("x", "a"), ("y", "d")], "a": [], "d": [("x", "a")]}
    assert trained_before(["c"], before.get) == ["a", "d", "b", "c"]
    before["a"] = [("loop", "c")]
    with pytest.raises(ValueError, match=r"^loop: the lists of the stage a would be those of c"):
        trained_before(["c"], before.get)
