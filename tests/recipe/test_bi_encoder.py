"""Recipes with `model.type=bi_encoder`: what they may have, what decides their digests."""

from __future__ import annotations

import pytest

from raypipe.commands.export import check_form
from raypipe.config import ConfigError
from raypipe.inference.truncation import TextLengths
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.models.trained_bi_encoder import TrainedBiEncoder
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.runs.rerank import BiEncoderRun, CrossEncoderRun
from raypipe.stages.stage import Stage
from raypipe.sweep.table_rows import baseline_runs


@pytest.fixture
def read(recipe, tiny_backbone):
    """Reads the small recipe as one of a bi-encoder, which leaves its truncation out."""
    text = recipe.read_text()
    kept = [line for line in text.splitlines() if not line.startswith("truncation:")]
    assert len(kept) == len(text.splitlines()) - 1
    recipe.write_text("\n".join(kept) + "\n")
    given = ("model.type=bi_encoder", f"model.backbone={tiny_backbone}", "model.max_length=32")
    return lambda *overrides: load(Experiment, recipe, [*given, *overrides])


def test_a_model_without_a_type_is_a_cross_encoder(recipe):
    untyped = load(Experiment, recipe)
    assert isinstance(untyped.model, CrossEncoder) and untyped.reading == untyped.truncation
    assert type(untyped.run_of(untyped.trained())) is CrossEncoderRun
    assert "type" not in untyped.model.semantic()


def test_a_stage_reads_texts_alone_and_a_row_ranks_by_vectors(read):
    experiment = read("model.query_length=16")
    stage = experiment.trained()
    assert isinstance(experiment.model, TrainedBiEncoder)
    assert stage.truncation == experiment.reading == TextLengths(query=16, doc=32)
    assert stage.chain()[0].offers_start  # vectors rank before any training
    run = experiment.run_of(stage)
    assert isinstance(run, BiEncoderRun) and run.spec()["model"]["query_length"] == 16


def test_prefixes_are_in_the_token_stores(read):
    """A prefix's last tokens may depend on the text after it."""
    plain, prefixed = read().trained(), read("model.query_prefix='q: '").trained()
    assert prefixed.query_tokens.prefix == "q: " and prefixed.doc_tokens.prefix == ""
    assert prefixed.query_tokens.digest != plain.query_tokens.digest
    assert prefixed.doc_tokens.digest == plain.doc_tokens.digest
    lists = prefixed.validation
    assert lists.query_tokens.prefix == "q: " and lists.doc_tokens.prefix == ""


@pytest.mark.parametrize(
    "override",
    ["temperature=1", "query_length=16", "normalize=false", "pooling=cls", "doc_prefix='d: '"],
)
def test_what_decides_the_weights_decides_the_digest(read, override):
    assert read(f"model.{override}").trained().digest != read().trained().digest


REFUSED = {
    "truncation={type: max_p}": r"truncation: max_p cuts pairs.*model\.query_length",
    "truncation={type: longest_first, max_length: 64}": r"truncation: longest_first cuts pairs",
    "stages.contrastive.filtering={}": r"stages\.contrastive\.filtering: .*leave it out",
    "resources={strategy: fsdp, workers: 2}": r"resources\.strategy: fsdp spreads.*use ddp",
    "evaluation.ensembles=[average]": r"evaluation\.ensembles: average joins.*use seeds",
    "model.temperature=0": r"model\.temperature: .*greater than 0",
    "model.head=similarity": r"model\.head",
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_is_made_for_pairs_is_refused_with_a_remedy(read, override):
    with pytest.raises(ConfigError, match=REFUSED[override]):
        read(override)


def test_rows_of_retrieval_are_of_bi_encoders_only(read, recipe, tiny_backbone):
    names = [name for name, *_ in baseline_runs(read("evaluation.retrieval=50"))]
    assert f"{tiny_backbone.name}, retrieving, untrained" in names
    assert not any("retrieving" in name for name, *_ in baseline_runs(read()))
    pairs = [f"model={{backbone: {tiny_backbone}}}", "evaluation.retrieval=50"]
    with pytest.raises(ConfigError, match=r"evaluation\.retrieval: bi-encoders retrieve"):
        load(Experiment, recipe, pairs)


OVER = "stages.contrastive.loss.over=step"
KL_OVER = "stages.distil.loss={type: kl, over: step}"


def test_a_loss_over_the_step_is_for_bi_encoders(read, recipe, tiny_backbone):
    for over, name in ((OVER, "contrastive"), (KL_OVER, "distil")):
        refused = rf"stages\.{name}\.loss: over=step compares.*`over`"
        with pytest.raises(ConfigError, match=refused):
            load(Experiment, recipe, [over])
    stage = read(OVER, "order=contrastive").trained()
    assert stage.digest != read("order=contrastive").trained().digest
    assert {"doc_texts", "kept_out"} <= stage.inputs().keys()
    assert not {"doc_texts", "kept_out"} & read().trained().inputs().keys()
    assert stage.inputs()["doc_texts"] == stage.groups.negatives.inputs()["hashes"]


def test_steps_of_several_sets_know_the_texts_of_each(read, beir_folder):
    further = (
        f"{{queries: {{dataset: 'beir:{beir_folder}', split: validation}}, "
        "negatives: {type: top_k, count: 3}}"
    )
    stage = read(OVER, "order=contrastive", f"groups.further.old={further}").trained()
    assert {"doc_texts of old", "kept_out of old"} <= stage.inputs().keys()
    own, other = (stage.inputs()[name] for name in ("kept_out", "kept_out of old"))
    assert own.digest != other.digest


@pytest.mark.parametrize("override", [o for o in REFUSED if not o.startswith("model")])
def test_a_step_of_all_queries_is_not_taken_apart(read, override):
    """max_p, filtering, fsdp: refused beside losses over the step as beside others."""
    with pytest.raises(ConfigError, match=REFUSED[override]):
        read(OVER, override)


SUM = "stages.distil.loss={type: weighted_sum, terms: {a: {loss: {type: %s, over: step}}}}"


@pytest.mark.parametrize("name", ["bce", "listnet", "ranknet", "margin_mse", "listmle", "lambda"])
def test_other_losses_are_over_the_group(read, name):
    with pytest.raises(ConfigError, match=r"stages\.distil\.loss\.over: unknown key"):
        read(f"stages.distil.loss={{type: {name}, over: step}}")
    with pytest.raises(ConfigError, match=r"terms\.a\.loss\.over: unknown key"):
        read(SUM % name)


def test_a_class_of_the_users_is_not_over_the_step(read, tmp_path, monkeypatch):
    (tmp_path / "own_over.py").write_text(
        "from typing import Literal\nfrom raypipe.losses.base import Loss\n\n\n"
        "class Mine(Loss):\n    over: Literal['group', 'step'] = 'group'\n\n"
        "    def per_query(self, scores_QD, targets_QD, mask_QD, known):\n"
        "        return scores_QD.sum(1)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("RAYPIPE_ALLOW_PLUGINS", "own_over")
    read("stages.contrastive.loss={type: 'own_over:Mine'}")
    with pytest.raises(ConfigError, match=r"over=step is for infonce and kl, found own_over:Mine"):
        read("stages.contrastive.loss={type: 'own_over:Mine', over: step}")


def test_a_step_of_one_query_is_refused(read):
    with pytest.raises(ConfigError, match=r"over=step compares .* found queries_per_step=1"):
        read(OVER, "stages.contrastive.queries_per_step=1")


def test_a_teacher_may_name_the_positive(read):
    top = "stages.contrastive.loss={type: infonce, over: step, positive: teacher_top}"
    stage = read(top, "order=contrastive").trained()
    assert stage.spec()["teacher_kind"] == "score"
    read(top, "groups.positives=any", "order=contrastive")
    with pytest.raises(ConfigError, match=r"groups\.positives is any"):
        read(OVER, "groups.positives=any", "order=contrastive")
    with pytest.raises(ConfigError, match=r"stages\.contrastive\.loss: infonce needs a teacher"):
        read(top, "teacher=null", "order=contrastive")
    with pytest.raises(ConfigError, match="positive: found teacher_top in a loss over the group"):
        read("stages.contrastive.loss={type: infonce, positive: teacher_top}")


SHARE = "stages.contrastive.loss={type: infonce, over: step, own_share: 0.6}"
MEMBERS = "teachers: {a: {type: list_scores}, b: {type: list_scores}}"


def test_a_share_of_the_highest_value_needs_values_on_a_scale(read, beir_folder, tiny_backbone):
    only = "order=contrastive"
    for raw in ("{type: list_scores}", f"{{type: ensemble, {MEMBERS}}}", None):
        overrides = [] if raw is None else [f"teacher={raw}"]
        with pytest.raises(
            ConfigError, match=r"own_share=0\.6 needs .* on \[0, 1\].*filter\.lists"
        ):
            read(SHARE, only, *overrides)
    read(SHARE, only, f"teacher={{type: ensemble, normalise: min_max, {MEMBERS}}}")
    fusion = f"{{type: fusion, backbone: '{tiny_backbone}', max_length: 32}}"
    rules = f"{{retrievers: {{bm25: {{type: bm25, depth: 20}}}}, teacher: {fusion}%s}}"
    train = (
        f"data.train={{type: synthetic, dataset: 'beir:{beir_folder}', passages: 50, filter: %s}}"
    )
    taught = train % (rules % ", lists: {count: 8}")
    read(SHARE, only, taught, "teacher={type: list_scores}")
    with pytest.raises(ConfigError, match=r"the list_scores teacher are raw"):
        read(SHARE, only, train % (rules % ""), "teacher={type: list_scores}")
    with pytest.raises(ConfigError, match=r"own_share: found 0\.6 in a loss over the group"):
        read("stages.contrastive.loss={type: infonce, own_share: 0.6}")
    with pytest.raises(ConfigError, match=r"own_share: .*less than or equal to 1"):
        read("stages.contrastive.loss={type: infonce, over: step, own_share: 2}")


@pytest.mark.parametrize("form", ["classifier", "onnx"])
def test_an_export_for_pairs_is_refused_before_work(read, form):
    check_form(read(), "transformers")
    with pytest.raises(ConfigError, match=rf"--form {form}: is made for re-rankers.*leave --form"):
        check_form(read(), form)


def test_a_model_with_too_few_positions_is_refused_before_work(read):
    read().check()
    with pytest.raises(ConfigError, match=r"model\.max_length: texts of up to 300 tokens"):
        read("model.max_length=300").check()
    with pytest.raises(ConfigError, match=r"stages\.contrastive\.freeze\.layers.*at most 2"):
        read("stages.contrastive.freeze.layers=3").check()


def test_two_stages_follow_each_other(read):
    stage = read("order=contrastive -> distil").trained()
    assert isinstance(stage.start, Stage) and stage.start.truncation == stage.truncation
