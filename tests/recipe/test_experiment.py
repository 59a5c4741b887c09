"""The recipe as a whole: what cannot fit is refused, and what a changed field trains anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypipe.config import ConfigError
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load, validate

DEFAULT = Path(__file__).parents[2] / "jobs" / "recipes" / "pydoc.yaml"
ALL_PAIRS = "stages.distil.loss={type: margin_mse, pairs: all}"
RUN_TEACHER = "teacher={type: run_file, paths: [x.trec]}"


def read(*overrides: str) -> Experiment:
    return load(Experiment, DEFAULT, overrides)


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        read(*overrides)
    return str(error.value)


# --- validators ----------------------------------------------------------------------------------


def test_an_order_is_split_at_its_arrows():
    assert read("order=distil->contrastive").stage_names == ("distil", "contrastive")
    assert read("order=[distil]").stage_names == ("distil",)
    assert read("order=contrastive -> contrastive").stage_names == ("contrastive",) * 2
    assert read().stage_names == ("contrastive", "distil")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["order=contrastive -> distill"],
            "order: there is no stage 'distill'; did you mean 'distil'?",
        ),
        (
            ["evaluation.measures=[nDCG@10, nDGC@10]"],
            "evaluation.measures: measure 'nDGC@10': there is no 'nDGC'; did you mean 'nDCG'?",
        ),
        (
            ["evaluation.measures=[AP, nDCG@20]"],
            "evaluation.selection: 'nDCG@10' is not measured; did you mean 'nDCG@20'?",
        ),
        (
            ["candidates.depth=30", "evaluation.depth=31"],
            "evaluation.depth: 31 is more than candidates.depth=30; raise that one",
        ),
        (
            ["candidates.depth=30", "evaluation.validation_depth=31"],
            "evaluation.validation_depth: 31 is more than candidates.depth=30",
        ),
        (["teacher=null"], "stages.distil.loss: margin_mse needs a teacher; set `teacher`"),
        (
            ["teacher=null", "stages.distil.loss={type: ranknet, targets: teacher}"],
            "stages.distil.loss: ranknet needs a teacher; set `teacher`",
        ),
        (
            [RUN_TEACHER],
            "stages.distil.loss: margin_mse cannot use the run_file teacher, which gives a rank; "
            "it needs score",
        ),
        (
            ["groups.positives=keep_if_retrieved"],
            "stages.contrastive.loss: infonce needs a positive in every group, but "
            "groups.positives is keep_if_retrieved; use inject or drop",
        ),
        (
            ["candidates.depth=30", "groups.negatives={type: random_window, high: 31}"],
            "groups.negatives: the window reaches rank 31, candidates.depth is 30; "
            "raise that depth",
        ),
        (
            [
                "candidates.depth=30",
                "stages.distil.groups={negatives: {type: random_window, high: 40}}",
            ],
            "the window reaches rank 40",
        ),
        (["groups.negatives={type: random_window, low: 9, high: 8}"], "(high=8) before low=9"),
        (["stages={}"], "stages: "),
        (
            ["stages.distil.loss={type: lambda, targets: teacher}"],
            "stages.distil.loss: lambda takes a teacher's values for gains, and the fusion "
            "teacher's are in part below 0",
        ),
        (
            ["resources.workers=3", "stages.distil.queries_per_step=2"],
            "stages.distil.queries_per_step: 2 queries cannot be shared by resources.workers=3; "
            "raise the one or lower the other",
        ),
        (
            ["resources={workers: 2, strategy: fsdp}", "stages.distil.filtering={}"],
            "stages.distil.filtering: leaves workers with unequal work, which "
            "resources.strategy=fsdp cannot have; use ddp",
        ),
        (
            ["resources.micro_batch_tokens=159"],
            "resources.micro_batch_tokens: 159 are fewer than one pair of the truncation has, 160; "
            "raise it, or shorten truncation",
        ),
        (
            ["stages.distil.limit=7"],
            "limit: 7 groups are fewer than one step of queries_per_step=8 takes",
        ),
    ],
)
def test_what_cannot_fit_is_refused(overrides, expected):
    assert expected in refused(*overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        [RUN_TEACHER, "stages.distil.loss={type: ranknet, targets: teacher}"],
        ["teacher=null", "order=contrastive"],  # a stage that does not run needs no teacher
        ["teacher=null", "stages.distil.loss={type: ranknet}"],
        ["groups.positives=keep_if_retrieved", "order=distil", ALL_PAIRS],
        ["candidates.depth=30", "groups.negatives={type: random_window, high: 30}"],
        ["candidates.depth=30", "evaluation.depth=30"],
        ["candidates.depth=30", "groups.negatives={type: top_k, count: 99}"],
        ["resources.workers=2", "stages.distil.queries_per_step=2"],
        ["resources={workers: 1, strategy: fsdp}", "stages.distil.filtering={}"],
        ["resources.workers=2", "stages.distil.filtering={}"],
        ["resources.micro_batch_tokens=160"],
        ["stages.distil.limit=8"],
        # a stage that does not run may be anything
        ["order=contrastive", "resources.workers=3", "stages.distil.queries_per_step=2"],
    ],
)
def test_what_just_fits_is_accepted(overrides):
    recipe = read(*overrides)
    for name in recipe.stage_names:
        assert recipe.stages[name].loss.uses == "labels" or recipe.teacher is not None


def test_a_stage_may_have_groups_of_its_own():
    recipe = read(
        "stages.distil.groups={positives: keep_if_retrieved, negatives: {type: top_k}}", ALL_PAIRS
    )
    assert recipe.groups_of("distil").positives == "keep_if_retrieved"
    assert recipe.groups_of("contrastive") == recipe.groups


# --- check ---------------------------------------------------------------------------------------


def checked(recipe: Path, *overrides: str) -> str:
    experiment = load(Experiment, recipe, overrides)
    with pytest.raises(ConfigError) as error:
        experiment.check()
    return str(error.value)


def test_a_usable_recipe_passes_and_writes_nothing(recipe):
    load(Experiment, recipe).check()
    assert list((recipe.parent / "storage").iterdir()) == []


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.test={dataset: beir/scifcat/test}", "data.test: ir_datasets has no dataset 'beir/s"),
        ("data.train={dataset: pydoc, split: trian}", "data.train: "),
        ("data.validation.dataset=beir:/nowhere/x", "data.validation: "),
        ("data.validation.split=dev", "data.validation: "),
        ("candidates={type: trec_run, paths: [/nowhere/x.trec]}", "run file /nowhere/x.trec: not"),
        ("model.backbone=/nowhere/model", "backbone /nowhere/model: no directory /nowhere/model"),
        ("model.backbone=package:no_such_pkg/model", "the package no_such_pkg is not installed"),
        ("teacher.backbone=/nowhere/teacher", "backbone /nowhere/teacher: no directory"),
        ("model.keep_layers=3", "model.keep_layers=3 is more than its 2 layers; set at most 2"),
        ("precision=fp16", "precision: fp16 needs a GPU"),
        ("truncation.max_length=129", "truncation.max_length: pairs of up to 129 tokens"),
        ("truncation={type: budgets, query: 5, doc: 120}", "truncation.query and doc: pairs of up"),
        (
            "truncation={type: max_p, query: 5, length: 120}",
            "truncation.query and length: pairs of up to 129 tokens, special tokens included, but "
            "model.backbone",
        ),
        ("stages.distil.freeze.layers=3", "stages.distil.freeze.layers: freezing the first 3 laye"),
    ],
)
def test_what_is_not_there_is_an_error_before_work(recipe, override, expected):
    assert expected in checked(recipe, override)


def test_what_just_has_room_passes(recipe):
    load(Experiment, recipe, ["truncation.max_length=128", "stages.distil.freeze.layers=2"]).check()
    longer = load(Experiment, recipe, ["truncation.max_length=600", "order=contrastive"])
    longer.check(model=False)  # mining reads no pairs


def test_errors_of_data_sets_suggest_the_nearest_name(recipe):
    unknown = checked(recipe, "data.test={dataset: beir/scifcat/test}")
    assert "did you mean 'beir/scifact/test'?" in unknown
    split = checked(recipe, "data.train={dataset: pydoc, split: trian}")
    assert "did you mean 'train'?" in split
    split = checked(recipe, "data.validation.split=validaton")
    assert "did you mean 'validation'?" in split


def test_a_missing_run_file_suggests_the_one_beside_it(recipe):
    beside = recipe.parent / "bm25.trec"
    beside.write_text("q d 1 1 1 x\n")
    path = recipe.parent / "bm52.trec"
    key = f"candidates={{type: trec_run, paths: [{path}]}}"
    assert checked(recipe, key).endswith("not there; did you mean 'bm25.trec'?")
    load(Experiment, recipe, [key.replace("bm52", "bm25")]).check()


def test_a_missing_teacher_file(recipe):
    stages = "stages.distil.loss={type: ranknet, targets: teacher}"
    message = checked(recipe, stages, "teacher={type: run_file, paths: [/nowhere/t.trec]}")
    assert message.startswith("run file /nowhere/t.trec: not there")


def test_storage_below_a_regular_file(recipe):
    (recipe.parent / "file").write_text("x")
    message = checked(recipe, f"storage={recipe.parent}/file/storage")
    assert f"storage {recipe.parent}/file/storage cannot be written" in message


def test_storage_and_tracking_default_to_the_home(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path))
    assert read().store().root == str(tmp_path / "storage")
    assert read("storage=/elsewhere").store().root == "/elsewhere"
    assert read().tracking_uri() is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    assert read().tracking_uri() == "http://server"
    assert read("tracking=sqlite:///x").tracking_uri() == "sqlite:///x"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("htp://u:hush@host", "found 'htp'; did you mean 'http'?"),
        ("postgres://u:hush@host/db", "found 'postgres'; did you mean 'postgresql'?"),
        ("sqlite:hush.db", "expected sqlite://..., found sqlite without ://"),
    ],
)
def test_mlflow_has_no_store_for_it(uri, expected, recipe, monkeypatch):
    with pytest.raises(ConfigError, match="tracking: expected ") as error:
        read(f"tracking={uri}")
    assert expected in str(error.value) and "hush" not in str(error.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert "MLFLOW_TRACKING_URI: expected " in checked(recipe, "tracking=null")


def test_a_recipe_is_validated_as_a_mapping_too():
    with pytest.raises(ConfigError, match=r"^here: stages\.a\.loss: "):
        validate(
            Experiment,
            {
                "name": "x",
                "data": {r: {"dataset": "pydoc"} for r in ("train", "validation", "test")},
                "model": {"backbone": "x"},
                "stages": {"a": {"loss": "infonce"}},
            },
            "here",
        )


# --- what a changed field changes -----------------------------------------------------------------

BASE = ["sweep.space={}", "reference=null"]


def trained(*overrides: str):
    return read(*BASE, *overrides).trained()


@pytest.fixture(scope="module")
def plain():
    return trained()


@pytest.mark.parametrize(
    "override",
    ["seed=2", "precision=fp16", "model.keep_layers=2", "truncation.max_length=90"],
)
def test_what_changes_training_but_no_groups(plain, override):
    # precision is the teacher's too: its scores are another artifact, and so are the groups
    other = trained(override)
    pairs = list(zip(plain.chain(), other.chain(), strict=True))
    assert all(one.digest != two.digest for one, two in pairs)
    same = plain.groups.digest == other.groups.digest
    assert same == (override != "precision=fp16")


@pytest.mark.parametrize(
    "override",
    [
        "resources.workers=2",
        "resources={cpus_per_worker: 2, micro_batch_tokens: 512, actors: 1, gpu: false}",
        "storage=/x",
        "tracking=sqlite:///x",
        "name=other",
        "evaluation.depth=3",
        "reference=BM25",
    ],
)
def test_what_changes_nothing_that_is_trained(plain, override):
    other = trained(override)
    assert [s.digest for s in other.chain()] == [s.digest for s in plain.chain()]
    assert other.groups.digest == plain.groups.digest


def test_a_setting_of_the_last_stage_leaves_the_first_alone(plain):
    other = trained("stages.distil.lr=3e-5")
    assert [a.digest == b.digest for a, b in zip(plain.chain(), other.chain(), strict=True)] == [
        True,
        False,
    ]


def test_groups_depend_on_candidates_sampling_and_teacher(plain):
    digests = {plain.groups.digest}
    for override in (
        "groups.seed=1",
        "groups.max_positives=2",
        "candidates.k1=1.2",
        "data.train.limit=7",
        "teacher.first_stage_weight=0.4",
        "stages.distil.loss.type=infonce",
    ):
        digests.add(trained(override).groups.digest)
    assert len(digests) == 6  # the loss is not in it
    assert trained("data.test.limit=7").groups.digest == plain.groups.digest


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("name=Default", "name: expected another name than that of MLflow's own experiment"),
        ('name="a\\nb"', "name: expected visible characters on one line, found U+000A"),
        ("candidates.name=''", "candidates.name: expected a name, found ''; give one"),
        (
            "evaluation.sets={'a(b': &set {queries: {dataset: pydoc}}, 'a)b': *set}",
            "evaluation.sets.a)b: expected a name that stays another than 'a(b' in MLflow",
        ),
        (
            "evaluation.sets={'a/b': {queries: {dataset: pydoc}}}",
            "evaluation.sets.a/b: expected a name without '/'",
        ),
        (
            'evaluation.sets={"a\\u200b": {queries: {dataset: pydoc}}}',
            "evaluation.sets.a\ufffd: expected visible characters on one line, found U+200B (ZERO",
        ),
        (
            'data.test.dataset="beir:/x\\0"',
            "data.test.dataset: expected text of whole characters, found U+0000 as character 8",
        ),
        (
            'evaluation.sets={"x\\ud800": {queries: {dataset: pydoc}}}',
            "evaluation.sets.x\ufffd: expected text of whole characters, found U+D800",
        ),
    ],
)
def test_a_name_that_cannot_be_made_safe_is_refused(override, expected):
    more = ["candidates={type: trec_run, paths: [x]}"] if "candidates" in override else []
    assert expected in refused(*more, override)


def test_ap_of_validation_lists_is_called_by_their_depth(recipe):
    """As that of test lists: AP of lists of 20 is AP@20, also where it chooses the checkpoint."""
    given = ["evaluation.measures=[AP, nDCG@10]", "evaluation.selection=AP"]
    experiment = load(Experiment, recipe, given)
    stage = experiment.trained()
    assert stage.measures == experiment.measures("test") == ("AP@20", "nDCG@10")
    assert stage.selection == experiment.selection == "AP@20"
