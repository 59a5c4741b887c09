"""`stages.NAME.model`: which model a stage trains, and what one stage hands to the next."""

from __future__ import annotations

from pathlib import Path

import pytest
from sentence_encoders import as_sentence_encoder

from raypipe.config import ConfigError
from raypipe.inference.truncation import LongestFirst, TextLengths
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.models.trained_bi_encoder import TrainedBiEncoder
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load, override
from raypipe.recipe.trials import expand
from raypipe.runs.rerank import BiEncoderRun, CrossEncoderRun
from raypipe.sweep.derived import retrieved_rows
from raypipe.sweep.plan import Plan
from raypipe.sweep.table_rows import baseline_runs

TEXTS = "max_length: 32, query_length: 16"


@pytest.fixture
def read(recipe, tiny_backbone):
    """Reads the small recipe; {texts} in a word is a bi-encoder, {pairs} a cross-encoder."""
    texts = f"{{type: bi_encoder, backbone: {tiny_backbone}, {TEXTS}}}"
    pairs = f"{{backbone: {tiny_backbone}}}"

    def load_with(*words: str) -> Experiment:
        given = [w.replace("{texts}", texts).replace("{pairs}", pairs) for w in words]
        return load(Experiment, recipe, given)

    return load_with


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, tiny_backbone) -> Path:
    return as_sentence_encoder(tiny_backbone, tmp_path_factory.mktemp("models") / "encoder")


BOTH = "order=contrastive -> distil"


def test_a_stage_without_a_model_has_the_recipes_and_the_digest_that_it_had(read):
    plain = read(BOTH)
    assert list(plain.models.values()) == [plain.model, plain.model]
    assert "model" not in plain.stages["contrastive"].semantic()
    named = read(BOTH, f"stages.distil.model={{backbone: {plain.model.backbone}}}")
    assert isinstance(named.models["distil"], CrossEncoder)
    first, last = named.trained().chain()
    assert first.digest == plain.trained().chain()[0].digest
    assert last.digest != plain.trained().digest  # another hidden_dropout
    same = read(BOTH, f"stages.distil.model={plain.model.model_dump_json()}")
    assert same.trained().digest == plain.trained().digest


def test_each_stage_reads_and_ranks_by_its_own_model(read):
    experiment = read(BOTH, "stages.contrastive.model={texts}", "evaluation.retrieval=20")
    first, last = experiment.trained().chain()
    assert isinstance(first.model, TrainedBiEncoder) and isinstance(last.model, CrossEncoder)
    assert first.truncation == TextLengths(query=16, doc=32)
    assert last.truncation == experiment.reading == LongestFirst(max_length=48)
    assert first.offers_start and not last.offers_start  # its head is drawn
    assert type(experiment.run_of(last)) is CrossEncoderRun
    plan = Plan.of(expand(experiment.replace(sweep={}, reference=None)))
    assert retrieved_rows(plan) == []  # a cross-encoder reads pairs, but its row stands:
    assert any("retrieving, untrained" in name for name, *_ in baseline_runs(experiment))

    other = read(BOTH, "stages.distil.model={texts}")
    first, last = other.trained().chain()
    assert last.offers_start and last.truncation == other.reading
    assert isinstance(other.run_of(last), BiEncoderRun)


def test_trials_of_both_kinds_stand_in_one_table(read):
    experiment = read("stages.contrastive.model={texts}", "evaluation.retrieval=20")
    plan = Plan.of(expand(experiment))
    assert [row.name for row in retrieved_rows(plan)] == ["contrastive, retrieving"]
    assert len(plan.stages) == 2  # the bi-encoder is trained once for both


def test_prefixes_stand_before_the_texts_of_their_stage_only(read, tiny_backbone):
    texts = f"{{type: bi_encoder, backbone: {tiny_backbone}, query_prefix: 'q: ', {TEXTS}}}"
    stages = read(BOTH, f"stages.contrastive.model={texts}").trained().chain()
    assert [stage.query_tokens.prefix for stage in stages] == ["q: ", ""]
    assert [stage.validation.query_tokens.prefix for stage in stages] == ["q: ", ""]


def test_what_auto_means_is_the_backbones_and_not_that_of_the_stage_before(recipe, encoder):
    def of(kind: str) -> str:
        return f"{{type: {kind}, backbone: {encoder}}}"

    given = [f"model={of('cross_encoder')}", f"stages.contrastive.model={of('bi_encoder')}", BOTH]
    first, last = load(Experiment, recipe, given).trained().chain()
    assert first.model.pooling == "auto" and last.model.head == "similarity"
    assert last.offers_start  # the cosine ranks before any training
    turned = [f"model={of('cross_encoder')}", f"stages.distil.model={of('bi_encoder')}", BOTH]
    last = load(Experiment, recipe, turned).trained()
    assert (last.model.pooling, last.model.normalize) == ("mean", True)
    assert (last.model.query_prefix, last.model.doc_prefix) == ("", "")


def test_dropout_that_is_null_is_that_of_the_stage_before(read, tiny_backbone):
    texts = f"{{type: bi_encoder, backbone: {tiny_backbone}, hidden_dropout: 0.2, {TEXTS}}}"
    first, last = read(BOTH, f"stages.contrastive.model={texts}").trained().chain()
    assert first.has_dropout and not last.has_dropout  # the recipe's model has 0
    first, last = read(BOTH, "stages.distil.model={texts}").trained().chain()
    assert not first.has_dropout and not last.has_dropout
    assert read("order=distil", "stages.distil.model={texts}").trained().has_dropout


REFUSED = {
    ("stages.distil.model={type: bi_encoder, backbone: other}",): (
        r"stages\.distil\.model\.backbone: expected .*tiny-bert as of the stage contrastive"
        r".*found other; give both the same backbone"
    ),
    (
        "stages.contrastive.model={backbone: x, keep_layers: 1}",
        "stages.distil.model={backbone: x, keep_layers: 2}",
    ): r"stages\.distil\.model\.keep_layers: 2 are more than the 1 that the stages before",
    (
        "stages.contrastive.model={backbone: x, head: similarity}",
        "stages.distil.model={backbone: x, head: classifier}",
    ): r"stages\.distil\.model\.head: expected similarity as of the stage contrastive.*classifier",
    ("stages.contrastive.model={texts}", "stages.contrastive.filtering={}"): (
        r"stages\.contrastive\.filtering: is made for model\.type=cross_encoder"
    ),
    ("stages.contrastive.model={texts}", "stages.distil.loss={type: infonce, over: step}"): (
        r"stages\.distil\.loss: over=step"
    ),
    ("stages.distil.model={texts}", "evaluation.ensembles=[average]"): (
        r"evaluation\.ensembles: average joins the weights of model\.type=cross_encoder"
    ),
    ("stages.distil.model={texts}", "resources={strategy: fsdp, workers: 2}"): r"fsdp spreads",
    ("stages.distil.model={type: bi_encoder}",): r"stages\.distil\.model\.backbone",
    ("evaluation.retrieval=20",): r"evaluation\.retrieval: bi-encoders retrieve",
    ("model={texts}", "stages.contrastive.model={texts}", "stages.distil.model={texts}"): (
        r"truncation: longest_first cuts pairs"
    ),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_does_not_fit_is_refused_when_it_is_read(read, words):
    with pytest.raises(ConfigError, match=REFUSED[words]):
        read(BOTH, "sweep.space={}", *words)


def test_stages_that_do_not_follow_each_other_may_differ(read, tiny_backbone):
    """Trials are read one by one: another backbone in an order of its own is another trial."""
    words = ["stages.distil.model={type: bi_encoder, backbone: other}", "order=contrastive"]
    experiment = read(*words, "sweep.space={}")
    assert experiment.backbone == str(tiny_backbone)
    tree = override(Experiment, experiment.model_dump(), "order", "distil")
    assert Experiment.model_validate(tree).backbone == "other"


def test_heads_that_the_files_make_are_compared_before_work(read, encoder):
    of = f"{{backbone: {encoder}}}"
    explicit = f"{{backbone: {encoder}, head: classifier}}"
    words = [f"stages.contrastive.model={of}", f"stages.distil.model={explicit}"]
    experiment = read(BOTH, "sweep.space={}", *words)
    with pytest.raises(ConfigError, match=r"distil\.model\.head: expected similarity.*classifier"):
        experiment.check()


def test_an_error_of_a_stages_model_names_the_stage(read, tiny_backbone):
    long = f"{{type: bi_encoder, backbone: {tiny_backbone}, max_length: 300, query_length: 16}}"
    experiment = read(BOTH, "sweep.space={}", f"stages.distil.model={long}")
    with pytest.raises(ConfigError, match=r"^stages\.distil: model\.max_length: .*300 tokens"):
        experiment.check()
    read(BOTH, "sweep.space={}", "stages.distil.model={texts}").check()
