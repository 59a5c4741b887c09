"""Training sets: what is null is the recipe's, equal sets are one artifact, contradictions."""

from __future__ import annotations

import json

import pytest
import yaml
from beir_recipe import DATA, read_recipe

from raypipe.commands.mine import steps_of
from raypipe.config import ConfigError
from raypipe.groups.samplers import TopK
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load, validate
from raypipe.recipe.trials import expand
from raypipe.resources import Context, RayOnDemand, Resources
from raypipe.storage.builder import Builder
from raypipe.sweep.plan import training_sets
from raypipe.train.group_reader import GroupReader

SECOND = (
    "{candidates: {type: trec_run, paths: [/run.trec], name: theirs, depth: 9}, "
    "negatives: {type: top_k, count: 4}, positives: any, "
    "teacher: {type: run_file, paths: [/run.trec]}}"
)
RANKS = "stages.distil.loss={type: ranknet, targets: teacher}"


def read(recipe, *overrides) -> Experiment:
    return load(Experiment, recipe, overrides)


def refused(recipe, *overrides) -> str:
    with pytest.raises(ConfigError) as error:
        read(recipe, *overrides)
    return str(error.value)


def test_stages_without_groups_share_the_recipes(recipe):
    experiment = read(recipe)
    assert list(experiment.training_sets()) == [("contrastive", "distil")]
    one, two = experiment.training("contrastive"), experiment.training("distil")
    assert one.groups().digest == two.groups().digest
    assert one.query_set == experiment.data.train
    assert one.source == experiment.candidates and one.teacher == experiment.teacher


def test_a_stage_with_a_set_of_its_own(recipe):
    experiment = read(recipe, f"stages.distil.groups={SECOND}", RANKS)
    assert list(experiment.training_sets()) == [("contrastive",), ("distil",)]
    data = experiment.training("distil")
    assert (data.source.label, data.source.depth) == ("theirs", 9)
    assert data.teacher.type == "run_file" and data.training_set.negatives == TopK(count=4)
    assert data.query_set == experiment.data.train
    assert experiment.training("contrastive").teacher.type == "fusion"
    asked = data.queries()  # `any` needs no positive, and no judgement
    assert not asked.require_positive and asked.keep_unjudged
    asked = experiment.training("contrastive").queries()
    assert asked.require_positive and not asked.keep_unjudged
    assert "keep_unjudged" not in asked.spec()  # what stood in the store before stays valid
    stages = experiment.trained().chain()
    assert [s.teacher_kind for s in stages] == ["score", "rank"]
    assert stages[0].query_tokens.texts == experiment.training("contrastive").queries()
    assert stages[1].query_tokens.texts == data.queries()


def test_other_queries_have_their_own_collection_and_tokens(recipe, beir_folder):
    experiment = read(
        recipe,
        f"stages.distil.groups.queries={{dataset: 'beir:{beir_folder}', split: train, skip: 9}}",
        "stages.distil.groups.negatives={type: top_k}",
    )
    data = experiment.training("distil")
    assert data.query_set.skip == 9
    assert data.collection().digest == experiment.collection("train").digest  # one corpus
    assert data.queries().digest != experiment.queries("train").digest


def test_the_filtering_teacher_scores_candidates_and_positives(recipe):
    filters = "groups.filters=[{type: relative_margin, share: 0.9}]"
    data = read(recipe, filters).training()
    step = data.filter_scores()
    assert step is not None and step.lists.extra.kind == "positives"
    assert step.lists.depth == 20  # the sampler's window
    assert data.negatives().inputs()["scores"] == step
    assert list(data.steps()) == [
        "collection",
        "queries",
        "candidates",
        "filter scores",
        "negatives",
        "teacher scores",
        "groups",
    ]
    plain = read(recipe).training()
    assert plain.filter_scores() is None and "filter scores" not in plain.steps()
    assert plain.groups().digest != data.groups().digest


def test_a_filter_teacher_of_its_own(recipe, tiny_backbone):
    teacher = f"groups.filter_teacher={{type: bi_encoder, backbone: {tiny_backbone}}}"
    filters = "groups.filters=[{type: max_score, score: 0.9}]"
    data = read(recipe, filters, teacher).training()
    assert data.filter_teacher.type == "bi_encoder" and data.teacher.type == "fusion"


def test_teachers_of_single_documents_score_the_groups_alone(recipe, tiny_backbone):
    assert read(recipe).training().teacher_scores().lists.depth == 20  # fusion: z over the list
    alone = f"teacher={{type: bi_encoder, backbone: {tiny_backbone}}}"
    assert read(recipe, alone).training().teacher_scores().lists.depth == 0


def test_triples_take_the_place_of_sampling(recipe, tmp_path):
    path = tmp_path / "triples.tsv"
    path.write_text("q00\td000\td001\n")
    data = read(recipe, f"groups={{triples: {{type: triples, path: {path}}}}}", "teacher=null",
                "order=contrastive", "sweep.space={}").training()  # fmt: skip
    assert data.negatives().kind == "negatives"
    assert list(data.steps()) == ["collection", "queries", "negatives", "groups"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("negatives", "{type: top_k, count: 3}"),
        ("filters", "[{type: near_duplicate}]"),
        ("positives", "drop"),
        ("max_positives", "2"),
        ("groups_per_query", "each_positive"),
        ("seed", "3"),
        ("sources", "{deep: {type: bm25, depth: 5}}"),
        ("filter_teacher", "{type: run_file, paths: [/run.trec]}"),
    ],
)
def test_triples_leave_nothing_to_choose(recipe, name, value):
    """Each of these would be ignored without a word."""
    groups = f"{{triples: {{type: triples, path: /t.tsv}}, {name}: {value}}}"
    message = refused(recipe, f"groups={groups}")
    assert f"groups.{name}: triples are ready-made groups" in message
    assert f"leave {name} out" in message


def test_a_sweep_over_triples_is_expanded(recipe):
    """Trials are read from a dump with every field set: defaults are no contradiction."""
    triples = "{type: triples, path: /t.tsv}"
    space = "sweep.space={stages.contrastive.lr: [1.0e-5, 2.0e-5]}"
    one = read(recipe, f"groups={{triples: {triples}}}", space, "reference=null")
    assert len(expand(one)) == 2
    assert one.replace(seed=4).groups == one.groups


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["groups.negatives={type: mixed, parts: {bm52: {share: 1, sampler: {type: top_k}}}}"],
            "groups.negatives.parts: there is no source 'bm52'",
        ),
        (
            [
                "groups.sources={deep: {type: bm25, depth: 5}}",
                "groups.negatives={type: mixed, parts: {deep: {share: 1, sampler: "
                "{type: random_window, high: 9}}}}",
            ],
            "the window reaches rank 9, sources.deep.depth is 5; raise that depth",
        ),
        (
            ["groups.filters=[{type: max_score, score: 1}]", "teacher=null", "order=contrastive",
             "sweep.space={}"],
            "groups.filters: max_score compare teacher scores; set `teacher` or",
        ),
        (
            [f"stages.distil.groups={SECOND}", RANKS,
             "stages.distil.groups.filters=[{type: max_score, score: 1}]"],
            "stages.distil.groups.filters: max_score compare scores, the run_file teacher gives a "
            "rank",
        ),
        (
            ["groups.positives=any"],
            "stages.contrastive.loss: infonce needs a positive in every group, but "
            "groups.positives is any",
        ),
        (
            [f"stages.distil.groups={SECOND}", RANKS,
             "stages.distil.groups.negatives={type: random_window, high: 10}"],
            "stages.distil.groups.negatives: the window reaches rank 10, "
            "stages.distil.groups.candidates.depth is 9",
        ),
    ],
)  # fmt: skip
def test_contradictions_are_named(recipe, overrides, message):
    assert message in refused(recipe, *overrides)


def test_a_set_is_named_by_its_stages_and_where_trials_differ_by_the_trial(recipe):
    space = "sweep.space={groups.seed: {one: 1, two: 2}}"
    sets = training_sets(expand(read(recipe, space, "reference=one")))
    assert list(sets) == ["contrastive, distil", "contrastive, distil (two)"]
    orders = training_sets(expand(read(recipe)))  # contrastive; contrastive -> distil
    assert list(orders) == ["contrastive, distil"]


def test_what_is_mined_is_named_once(recipe):
    steps = steps_of(read(recipe))
    assert len({step.digest for step in steps.values()}) == len(steps)
    names = list(steps)
    assert names[:3] == ["validation collection", "validation queries", "validation candidates"]
    assert {step.kind for step in steps.values()} == {
        "collection", "queries", "candidates", "negatives", "teacher", "groups",
    }  # fmt: skip


def test_stages_with_commas_in_their_names_keep_their_sets(recipe):
    tree = yaml.safe_load(recipe.read_text()) | {"sweep": {}, "reference": None}
    one, two = tree["stages"].values()
    own = {"negatives": {"type": "top_k", "count": 2}}
    tree["stages"] = {"a": one, "b": two, "a, b": {**one, "groups": own}}
    experiment = validate(Experiment, tree, "r")
    assert list(experiment.training_sets()) == [("a", "b"), ("a, b",)]
    sets = training_sets(expand(experiment))
    assert [data.training_set.negatives.type for data in sets.values()] == [
        "random_window",
        "top_k",
    ]


def test_a_small_set_is_trained_on_with_every_positive(tmp_path, tiny_backbone):
    """As CISI: 40 queries with 1,979 relevant documents of 1,460."""
    queries, positives, docs = 40, 1979, 1460
    (tmp_path / "qrels").mkdir()
    corpus = [{"_id": f"d{i}", "text": f"word{i} of q{i % queries} and all"} for i in range(docs)]
    asked = [{"_id": f"q{i}", "text": f"all of q{i}"} for i in range(queries)]
    for name, rows in (("corpus", corpus), ("queries", asked)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = [f"q{n % queries}\td{(n // queries * 29 + n) % docs}\t1\n" for n in range(positives)]
    assert len({*judged}) == positives
    for split in ("train", "validation", "test"):
        path = tmp_path / "qrels" / f"{split}.tsv"
        path.write_text("".join(["query-id\tcorpus-id\tscore\n", *judged]))
    recipe = "name: cisi\nstorage: {folder}/storage\n" + DATA
    recipe += 'model: {{backbone: "{backbone}"}}\nstages: {{a: {{loss: {{type: infonce}}}}}}\n'
    experiment = read_recipe(recipe, tmp_path, tmp_path, tiny_backbone)

    def no_ray() -> None:
        raise AssertionError("mining of this size starts no Ray")

    context = Context(Resources(), progress_bars=False, late=RayOnDemand(no_ray))
    (data,) = experiment.training_sets().values()
    artifact = Builder(experiment.store(), context).get(data.joined_groups())
    assert artifact.counts["groups"] == positives
    reader = GroupReader(artifact.local())
    assert len(reader) == positives
