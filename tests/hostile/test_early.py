"""What a dry run says before any work: each thing that would be wrong hours later, in one line.

Every row of the tables is an input that no other test tries; nothing is measured, nothing stored.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from raypipe.commands.preview import preview
from raypipe.config import ConfigError
from raypipe.datasets.beir import BeirFolder
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand
from raypipe.storage.builder import Builder

Change = Callable[[Path], object]


@pytest.fixture
def own(recipe, beir_folder, tmp_path) -> Path:
    """The recipe on a copy of the data that the test may change: `tmp_path / "own"`."""
    shutil.copytree(beir_folder, tmp_path / "own")
    recipe.write_text(recipe.read_text().replace(str(beir_folder), str(tmp_path / "own")))
    return recipe


def lines(recipe: Path, *overrides: str) -> list[str]:
    experiment = load(Experiment, recipe, overrides)
    return list(preview(expand(experiment), Builder(experiment.store()), model=False))


def refused(recipe: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        lines(recipe, *overrides)
    return str(error.value)


# --- files of first stages ------------------------------------------------------------------------


def run_of(line: str, queries: range = range(60)) -> bytes:
    rows = (line.format(q=f"q{i:02d}", d=f"d{i:03d}", i=i) for i in queries)
    return "".join(f"{row}\n" for row in rows).encode()


GOOD = run_of("{q} Q0 {d} 1 1.5 t")
RUNS = {
    "lines without ranks": run_of("{q} Q0 {d} 1.5 t"),
    "packed, with a byte order mark": gzip.compress(b"\xef\xbb\xbf" + GOOD),
    "NaN of a query of another set": GOOD + b"other Q0 d000 1 nan t\n",
}


@pytest.mark.parametrize("case", RUNS)
def test_runs_that_a_job_reads(case, recipe, tmp_path):
    path = tmp_path / "x.run"
    path.write_bytes(RUNS[case])
    said = lines(recipe, f"candidates={{type: trec_run, paths: ['{path}'], depth: 20, name: x}}")
    assert any("has 12 of 12 queries of data.test" in line for line in said)


BROKEN_RUNS = {
    "NaN as a score": (
        GOOD + b"q50 Q0 d001 2 nan t\n", r"x.run, line 61: expected a finite rank and score",
    ),
    "infinity as a score": (GOOD + b"q50 Q0 d001 2 -inf t\n", "line 61: expected a finite rank"),
    "words as ranks": (GOOD + b"q50 Q0 d001 two 1 t\n", "line 61: expected an integer rank"),
    "ranks in some lines": (
        run_of("{q} Q0 {d} 1.5 t") + b"q50 Q0 d001 2 1 t\n", "line 61: expected five columns",
    ),
    "a packed file that was cut": (gzip.compress(GOOD)[:-20], "expected a complete gzip file"),
    "another alphabet of bytes": (GOOD + "q50 Q0 \xe9 2 1 t\n".encode("latin-1"), "expected UTF-8"),
    "documents of another collection": (
        run_of("{q} Q0 MARCO_{i} 1 1.5 t"), "0 of its 60 documents are in the collection",
    ),
    "queries of another spelling": (run_of("Q{i} Q0 {d} 1 1.5 t"), "has 0 of 36 queries of data.t"),
    "nothing": (b"", "has 0 of 36 queries of data.train: it has 'nothing'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_RUNS)
def test_runs_that_a_job_would_refuse(case, recipe, tmp_path):
    content, message = BROKEN_RUNS[case]
    (tmp_path / "x.run").write_bytes(content)
    source = f"candidates={{type: trec_run, paths: ['{tmp_path / 'x.run'}'], depth: 20}}"
    assert message in refused(recipe, source)


def test_lists_that_the_data_set_ships(recipe, monkeypatch):
    source = "candidates={type: scored_docs, depth: 20}"
    assert "has no scoreddocs" in refused(recipe, source)
    rows = [(f"q{i:02d}", f"d{i:03d}", float(i)) for i in range(60)]
    monkeypatch.setattr(BeirFolder, "scoreddocs", lambda self: iter(rows))
    said = lines(recipe, source)
    assert any(
        line.startswith("data.test: scored_docs scoreddocs: has 12 of 12 queries") for line in said
    )
    monkeypatch.setattr(BeirFolder, "scoreddocs", lambda self: iter([("x", "d000", 1.0)]))
    assert "has 0 of 12 queries of data.test: it has 'x'" in refused(recipe, source)
    nan = [(q, d, float("nan")) for q, d, _ in rows]
    monkeypatch.setattr(BeirFolder, "scoreddocs", lambda self: iter(nan))
    assert "document d000: expected a finite score, found nan" in refused(recipe, source)
    monkeypatch.setattr(BeirFolder, "first_scoreddocs", lambda self, count: None)
    assert "data.test: scored_docs scoreddocs: not read, they are to be fetched" in lines(
        recipe, source
    )


def test_suites_that_would_have_to_be_fetched(recipe):
    said = lines(recipe, "evaluation.suites=[trec-dl, robust04]")
    (line,) = (line for line in said if line.startswith("evaluation.suites:"))
    assert line.endswith("they are to be fetched: DL 2019, DL 2020, DL hard, Robust04")


# --- files of teachers ----------------------------------------------------------------------------

TEACHERS = {
    "some values are NaN": (
        "mono_scores", "{q}\t{d}\tnan\n" * 2 + "{q}\td001\t1\n",
        "72 of 108 values are NaN or infinite",
    ),
    "one of two logits is infinite": (
        "mono_scores", "{q}\t{d}\t-inf\t0\n{q}\td001\t1\t0\n", "36 of 72 values are NaN or inf",
    ),
    "one of two scores is infinite": (
        "ensemble_scores", "1\t1e999\t{q}\t{d}\td001\n1\t2\t{q}\t{d}\td002\n",
        "36 of 144 values are NaN or infinite",
    ),
    "every second score is NaN": (
        "ensemble_scores", "1\tnan\t{q}\t{d}\td001\n", "36 of 72 values are NaN or infinite",
    ),
}  # fmt: skip
TEACHERS_REFUSED = {
    "all values are NaN": (
        "mono_scores", "{q}\t{d}\tNaN\n", "36 of 36 values are NaN or infinite: the model that",
    ),
    "probabilities where logs belong": (
        "duo_scores", "{q}\t{d}\td001\t0.7\n", "line 1: expected the log of a probability",
    ),
    "a score in words": ("mono_scores", "{q}\t{d}\thigh\n", "expected a number as score"),
    "parted by spaces": ("mono_scores", "{q} {d} 0.5\n", "expected 4 columns parted by tabs"),
    "five columns for a score": (
        "mono_scores", "{q}\t{d}\t1\t2\t3\n", "t.tsv, line 1: expected 4 columns parted by tabs",
    ),
    "queries of another set": ("mono_scores", "x{i}\t{d}\t1\n", "has 0 of 36 queries of groups of"),
}  # fmt: skip


def taught(recipe: Path, kind: str, row: str, folder: Path) -> list[str]:
    path = folder / "t.tsv"
    rows = (row.format(q=f"q{i:02d}", d=f"d{i:03d}", i=i) for i in range(36))
    path.write_text("".join(rows))
    return [
        "stages.distil.loss={type: ranknet, targets: teacher}",
        "stages.distil.queries_per_step=6",
        f"teacher={{type: {kind}, paths: ['{path}']}}",
    ]


@pytest.mark.parametrize("case", TEACHERS)
def test_teachers_of_which_some_values_are_lost(case, recipe, tmp_path):
    kind, row, message = TEACHERS[case]
    said = lines(recipe, *taught(recipe, kind, row, tmp_path))
    assert any(message in line for line in said)


@pytest.mark.parametrize("case", TEACHERS_REFUSED)
def test_teachers_that_a_job_would_refuse(case, recipe, tmp_path):
    kind, row, message = TEACHERS_REFUSED[case]
    assert message in refused(recipe, *taught(recipe, kind, row, tmp_path))


# --- the data set ---------------------------------------------------------------------------------


def replaced(name: str, old: str, new: str) -> Change:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


TEST, TRAIN = "qrels/test.tsv", "qrels/train.tsv"
DATA: dict[str, tuple[Change, str]] = {
    "judgements of a split that names no query": (
        replaced(TEST, "\nq", "\nQ"), "own-test: no query left",
    ),
    "no judgement at all": (
        lambda f: (f / TEST).write_text("query-id\tcorpus-id\tscore\n"), "own-test: no query",
    ),
    "a header alone, of TREC's four columns": (
        lambda f: (f / TEST).write_text("q48 0 d048 1\n"), "test.tsv:1: expected the header",
    ),
    "nothing relevant in training": (
        lambda f: (f / TRAIN).write_text((f / TRAIN).read_text().replace("\t1", "\t0")),
        "own-train: no query left (skip 0)",
    ),
    "a corpus of empty texts": (
        lambda f: (f / "corpus.jsonl").write_text(
            "".join(f'{{"_id": "d{i:03d}", "text": " "}}\n' for i in range(120))),
        "judged documents are not in the collection, or have no text",
    ),
    "an empty corpus": (
        lambda f: (f / "corpus.jsonl").write_text(""), "judged documents are not in the collection",
    ),
    "a corpus in UTF-16": (
        lambda f: (f / "corpus.jsonl").write_bytes(
            (f / "corpus.jsonl").read_text().encode("utf-16")),
        "corpus.jsonl:1: expected UTF-8",
    ),
    "a corpus that is one list": (
        lambda f: (f / "corpus.jsonl").write_text('[{"_id": "d000", "text": "t"}]'),
        "corpus.jsonl:1: expected a JSON object",
    ),
    "queries under another key": (
        replaced("queries.jsonl", '"_id"', '"query_id"'), 'queries.jsonl:1: expected text or a wh',
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DATA)
def test_data_that_a_job_would_refuse(case, own, tmp_path):
    change, message = DATA[case]
    change(tmp_path / "own")
    assert message in refused(own)


def test_a_loss_that_asks_for_more_groups_than_a_teacher_has(recipe, tmp_path):
    """Eight queries of a file that is whole but for NaN."""
    overrides = taught(recipe, "mono_scores", "q0{i}\td00{i}\t1\n", tmp_path)
    text = (tmp_path / "t.tsv").read_text()
    (tmp_path / "t.tsv").write_text("".join(text.splitlines(keepends=True)[:5]))
    assert "at most 5 groups are fewer than one step" in refused(recipe, *overrides)
