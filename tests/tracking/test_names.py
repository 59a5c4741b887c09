"""Names that MLflow accepts."""

from __future__ import annotations

import pytest

from raypipe.tracking.names import (
    cells,
    distinct_name,
    experiment_folder,
    file_name,
    key,
    metric_name,
    model_name,
    run_name,
    run_page,
)

MODE = "?workflowType=machine_learning"


@pytest.mark.parametrize(
    ("measure", "metric"),
    [
        ("nDCG@10", "nDCG_10"),
        ("RR@10", "RR_10"),
        ("AP", "AP"),
        ("Judged@10", "Judged_10"),
        ("alpha_nDCG@10", "alpha_nDCG_10"),
        ("IPrec@0.1", "IPrec_0.1"),
        ("AP(rel=2)", "AP.rel-2"),
        ("RR(rel=2)@10", "RR.rel-2_10"),
        ("RBP(rel=2,p=0.95)", "RBP.rel-2.p-0.95"),
        ("nDCG(dcg='exp-log2')@10", "nDCG.dcg-exp-log2_10"),
        ("loss", "loss"),
        ("validation/nDCG@10", "validation/nDCG_10"),
        ("DL 2019/RR(rel=2)@10", "DL 2019/RR.rel-2_10"),
        ("stages.distil.lr", "stages.distil.lr"),
    ],
)
def test_metric_names(measure, metric):
    assert metric_name(measure) == metric


@pytest.mark.parametrize(
    "name", ["odd (", "a#b%c", "/abs", "../up", "a//b", "x[0]", ".", "é:b", "\ud800"]
)
def test_any_name_becomes_legal(name):
    import mlflow.utils.validation as theirs

    theirs._validate_metric_name(metric_name(name))
    theirs._validate_param_name(key(name))


def test_keys_that_become_equal_are_both_kept():
    assert cells({"a@b": 1, "a#b": 2, "long": "x" * 7000}) == [
        ("a_b", "1"),
        ("a_b_2", "2"),
        ("long", "x" * 6000),
    ]


@pytest.mark.parametrize(
    ("recipe", "registered"),
    [("tiny", "tiny"), ("ms marco/v2:kd (a)", "ms marco_v2_kd (a)"), ("..x", "_..x")],
)
def test_a_recipes_name_can_be_registered(recipe, registered):
    import mlflow.utils.validation as theirs

    assert model_name(recipe) == registered
    theirs._validate_model_name(registered)


@pytest.mark.parametrize(
    ("server", "page"),
    [
        ("http://host:5000/", f"http://host:5000/#/experiments/7/runs/abc{MODE}"),
        ("https://host/mlflow", f"https://host/mlflow/#/experiments/7/runs/abc{MODE}"),
        ("sqlite:////home/mlflow.db", "sqlite:////home/mlflow.db run abc"),
    ],
)
def test_the_page_of_a_run(server, page):
    assert run_page(server, "7", "abc") == page


def test_a_long_name_keeps_its_measure_and_is_its_own():
    first, second = (metric_name(f"{'x' * 300}{end}/nDCG@10") for end in "ab")
    assert first.endswith("/nDCG_10") and len(first) <= 250 and first != second


@pytest.mark.parametrize(
    ("name", "folder"), [("tiny", "tiny"), ("ms marco: v1.5", "ms_marco__v1.5"), ("é", "é")]
)
def test_the_folder_of_an_experiment(name, folder):
    assert experiment_folder(name) == folder


@pytest.mark.parametrize("name", [".", "..", "../../x", "x" * 600, "a\x00b"])
def test_every_experiment_has_one_folder_of_its_own(name):
    folder = experiment_folder(name)
    assert "/" not in folder and folder not in (".", "..") and len(folder.encode()) <= 255


def test_files_and_titles_of_runs():
    assert file_name("run.DL 2019.trec") == "run.DL 2019.trec"
    odd = {file_name(f"run.{name}.trec") for name in ("a#b", "a?b", "a%b", "../..", "x" * 300)}
    assert len(odd) == 5
    for name in odd:
        assert name.endswith(".trec") and not set("#?%/") & set(name) and len(name) <= 255
    assert run_name("MiniLM / kd") == "MiniLM / kd" and len(run_name("x" * 600)) == 250


def test_a_run_s_title_says_its_seed_and_job():
    began = "2026-11-28 04:31:05"
    assert distinct_name("kd", 2, began) == f"kd, seed 2, {began}"
    assert distinct_name("kd / seed 2", 2, began) == f"kd / seed 2, {began}"
    assert distinct_name("BM25", None, began) == f"BM25, {began}"
    assert distinct_name("BM25", None, "") == "BM25"
    long = distinct_name("x" * 600, 2, began)
    assert len(long) == 250 and long.endswith(f", seed 2, {began}")
