"""Small lies: settings that nobody would miss, names of other libraries, files of other programs.

Every row of the tables is an input that no other test tries.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from six_documents import json_lines, said, six_lists

from raypipe.config import ConfigError
from raypipe.datasets.ir import open_dataset
from raypipe.datasets.queries import select_queries
from raypipe.interrupts import SENTENCE
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.teachers.published.rankgpt import RankGptFile
from raypipe.teachers.published.scores import EnsembleScores, MonoScores

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = ROOT / "jobs" / "recipes" / "default.yaml"
quick = settings(deadline=None, max_examples=60, database=None)


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load(Experiment, DEFAULT, overrides)
    return str(error.value)


# --- names and values of settings -----------------------------------------------------------------

OVERRIDES = {
    "stages.distil.num_epochs=3": "here it is called 'epochs'",
    "stages.distil.per_gpu_train_batch_size=8": "here it is called 'queries_per_step'",
    "stages.distil.lr_scheduler_type=linear": "here it is called 'schedule'",
    "stages.distil.evaluation_steps=50": "here it is called 'validate_every' (in steps)",
    "stages.distil.save_total_limit=2": "here it is called 'checkpoints_kept'",
    "stages.distil.early_stopping_patience=3": "here it is stages.NAME.early_stopping.patience",
    "stages.distil.adam_beta1=0.9": "here it is called 'betas'",
    "stages.distil.criterion=mse": "here it is called 'loss'",
    "groups.negatives.train_group_size=8": "here it is called 'count'",
    "candidates.top_k=100": "here it is called 'depth'",
    "evaluation.metric_for_best_model=AP": "here it is called 'selection'",
    "model.num_hidden_layers=3": "here it is called 'keep_layers'",
    "resources.nproc_per_node=2": "here it is called 'workers'",
    "truncation.passage_max_len=200": "here it is truncation.doc",
    "output_dir=/tmp/x": "here it is called 'storage'",
    "random_state=3": "here it is called 'seed'",
    "stages.distil.lr=1e-5e": "stages.distil.lr: input should be a valid number",
    "stages.distil.lr=-1e-5": "override stages.distil.lr: input should be greater than",
    "stages.distil.lr=.nan": "stages.distil.lr: ",
    "stages.distil.steps=1.5": "override stages.distil.steps: ",
    "stages.distil.queries_per_step=yes": "stages.distil.queries_per_step: expected a number, fou",
    "seed=1e3x": "override seed: ",
    "candidates.depth=9999999999999999999": "override candidates.depth: expected at most ",
    "stages.distil.warmup=10": "override stages.distil.warmup: input should be less than",
    "stages.distil.loss.type=Margin-MSE": "did you mean 'margin_mse'?",
    "evaluation.measures=[ndcg@10]": "did you mean 'nDCG'?",
    "evaluation.measures=[nDCG@0]": "expected a cutoff of at least 1",
    "evaluation.selection=RR@100": "is not measured",
    "precision=float16": "precision: ",
    "stages.distil..lr=1": "override stages.distil..lr: ",
    "Stages.distil.lr=1": "'Stages'; did you mean 'stages'?",
    "data.test.positive_relevance=0": "override data.test.positive_relevance: input should be gre",
}


@pytest.mark.parametrize("override", OVERRIDES)
def test_overrides(override):
    message = refused(override)
    assert OVERRIDES[override] in message
    assert not message.startswith(str(DEFAULT)), "the file is not to blame"


@quick
@given(st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12))
def test_any_other_name_is_refused(name):
    """Property: no name that a stage does not have is taken without a word."""
    from raypipe.stages.stage import StageConfig

    if name not in StageConfig.model_fields:
        assert f"unknown key {name!r}" in refused(f"stages.distil.{name}=1")


# --- files of data sets ---------------------------------------------------------------------------

HEADER = "query-id\tcorpus-id\tscore\n"
JUDGED = {
    "BOM, CR LF and no end of the last line": "\ufeff" + HEADER.replace("\n", "\r\n") + "q\td\t1",
    "relevance with many zeros": HEADER + "q\td\t1.000000\n",
    "blank lines between": HEADER + "\n\r\nq\td\t1\n\n",
    "a second judgement that is lower": HEADER + "q\td\t1\nq\td\t0\n",
    "packed in two parts": gzip.compress(HEADER.encode()) + gzip.compress(b"q\td\t+1\n"),
}
JUDGED_WRONG = {
    "a header in capitals": ("Query-ID\tCorpus-ID\tScore\nq\td\t1\n", "expected the header"),
    "the header after the lines": ("q\td\t1\n" + HEADER, "expected the header"),
    "columns parted by commas": (HEADER.replace("\t", ",") + "q,d,1\n", "expected the header"),
    "a fourth column": (HEADER + "q\td\t1\tx\n", "expected three tab-separated fields"),
    "TREC's four columns behind the header": (HEADER + "q\t0\td\t1\n", "three tab-separated"),
    "relevance with an exponent": (HEADER + "q\td\t1e0\n", "a whole number as relevance"),
    "relevance in words": (HEADER + "q\td\ttrue\n", "a whole number as relevance, found 'true'"),
    "relevance that is nothing": (HEADER + "q\td\t\n", "a whole number as relevance, found ''"),
    "relevance with a decimal comma": (HEADER + "q\td\t1,0\n", "number as relevance, found .1"),
    "a space behind a document's id": (HEADER + "q\td \t1\n", "an? .* id without white space"),
    "UTF-16": ((HEADER + "q\td\t1\n").encode("utf-16"), "expected UTF-8"),
}  # fmt: skip


def folder(root: Path, qrels: str | bytes) -> str:
    (root / "set" / "qrels").mkdir(parents=True)
    content = qrels if isinstance(qrels, bytes) else qrels.encode()
    (root / "set" / "qrels" / "test.tsv").write_bytes(content)
    (root / "set" / "corpus.jsonl").write_text('{"_id": "d", "text": "t"}')
    (root / "set" / "queries.jsonl").write_text('{"_id": "q", "text": "w"}')
    return f"beir:{root / 'set'}"


@pytest.mark.parametrize("case", JUDGED)
def test_judgements(case, tmp_path):
    from raypipe.datasets.steps import Queries, QuerySet

    data = QuerySet(dataset=folder(tmp_path, JUDGED[case]), split="test")
    found = Queries(data, require_positive=True).select()
    assert found.qrels.to_pylist() == [{"query_id": "q", "doc_id": "d", "relevance": 1}]
    assert found.counts["duplicate_qrels"] == (case == "a second judgement that is lower")


@pytest.mark.parametrize("case", JUDGED_WRONG)
def test_judgements_refused(case, tmp_path):
    content, message = JUDGED_WRONG[case]
    data = open_dataset(folder(tmp_path, content), "test")
    with pytest.raises(ConfigError, match=message) as error:
        select_queries(data, None, 0, 1, False)
    assert "test.tsv:" in str(error.value)


IDS = {
    "a whole number": (7, "7"),
    "a negative whole number": (-7, "-7"),
    "a number of thirty digits": (10**29, str(10**29)),
    "text of a number with a point": ("7.0", "7.0"),
    "text with leading zeros": ("007", "007"),
}


@pytest.mark.parametrize("case", IDS)
def test_ids_of_documents(case, tmp_path):
    given_id, expected = IDS[case]
    data = open_dataset(folder(tmp_path, HEADER), "test")
    (tmp_path / "set" / "corpus.jsonl").write_text(json.dumps({"_id": given_id, "text": "t"}))
    assert list(data.docs()) == [(expected, "t")]


# --- files of teachers from other programs --------------------------------------------------------


@pytest.fixture
def lists(tmp_path):
    return six_lists(tmp_path / "six")


ROWS = {
    "mono_scores": (MonoScores, "q1\td0\t2\nq1\td1\t-1\n", {"d0": 2.0, "d1": -1.0}),
    "ensemble_scores": (EnsembleScores, "2\t-1\tq1\td0\td1\n", {"d0": 2.0, "d1": -1.0}),
}
FORMS = {
    "CR LF": lambda text: text.replace("\n", "\r\n").encode(),
    "a byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "packed, both of these": lambda text: gzip.compress(
        b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()
    ),
    "no end of the last line": lambda text: text.rstrip("\n").encode(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ROWS)
def test_forms_of_teachers_files(kind, form, lists, tmp_path):
    cls, text, expected = ROWS[kind]
    (tmp_path / "t.tsv").write_bytes(FORMS[form](text))
    teacher = cls(paths=(str(tmp_path / "t.tsv"),))
    artifact = Builder(Store(str(tmp_path / "store"))).get(teacher.scores(lists, "fp32"))
    assert said(artifact)["q1"] == expected


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_rankgpt_files(form, lists, tmp_path):
    rows = [{"query_id": "q1", "retrieved_passages": [
        {"docid": "d0", "rank": 1}, {"docid": "d1", "rank": 2}]}]  # fmt: skip
    (tmp_path / "lists.jsonl").write_bytes(FORMS[form](json_lines(rows).decode()))
    (tmp_path / "answers.json").write_bytes(FORMS[form]('["[2] > [1]"]\n'))
    teacher = RankGptFile(
        lists=str(tmp_path / "lists.jsonl"), permutations=str(tmp_path / "answers.json")
    )
    artifact = Builder(Store(str(tmp_path / "store"))).get(teacher.scores(lists, "fp32"))
    assert said(artifact)["q1"] == {"d1": 1.0, "d0": 2.0}


# --- Ctrl-C before the command is there -----------------------------------------------------------

INTERRUPTED = """
import os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
class Interrupt:
    def find_spec(self, name, *more):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
sys.argv = [sys.argv[1], "--help"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("job", ["artifacts", "mine", "report", "sweep", "train"])
def test_ctrl_c_while_a_job_imports(job):
    command = [sys.executable, "-c", INTERRUPTED, str(ROOT / "jobs" / f"{job}.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"{SENTENCE}\n")
