"""Runs that exist as rows: read, checked before work, judged as any other run."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chunks_here import builder_here
from small_source import small_data

from raypipe.commands.existing_rows import look_at_run_rows
from raypipe.commands.query_sets import contents
from raypipe.config import ConfigError
from raypipe.datasets.steps import Collection, Queries
from raypipe.evaluation.results import MAIN, Row
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand
from raypipe.records import RUN
from raypipe.runs.existing import ExistingRun, RunRow
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.sweep.report_facts import judged_on, set_facts
from raypipe.sweep.table_rows import baseline_runs, baselines

TEST = [f"q{i}" for i in range(48, 60)]
RIGHT = "".join(f"{q} Q0 d{int(q[1:]):03d} 1 2.0 t\n{q} Q0 d000 2 1.0 t\n" for q in TEST)
"""The relevant document of every test query first."""


def read(folder, text: str | pa.Table, name: str = "x.run"):
    data = small_data(folder)
    path = folder / name
    if isinstance(text, str):
        path.write_text(text)
    else:
        pq.write_table(text, path)
    builder = Builder(Store(str(folder / "storage")))
    step = ExistingRun("mine", str(path), Collection(data), Queries(data, False))
    artifact = builder.get(step)
    rows = {row["query_id"]: row["doc_ids"] for row in artifact.table().to_pylist()}
    assert artifact.table().schema.equals(RUN)
    return {query: docs for query, docs in rows.items() if docs}, artifact, builder.alarms


def lists(rows: dict[str, tuple[list[str], list[float]]]) -> pa.Table:
    columns = [list(rows), [docs for docs, _ in rows.values()], [s for _, s in rows.values()]]
    return pa.table(columns, schema=RUN)


def test_ranks_are_the_order_and_every_drop_is_counted_and_said(tmp_path):
    text = (
        "q1 Q0 d3 2 9 t\nq1 Q0 d1 1 1 t\nq1 Q0 nowhere 3 0 t\nq1 Q0 d1 4 0 t\n"
        "q2 Q0 d2 0 1 t\nq2 Q0 d5 0 7 t\nelse Q0 d1 1 1 t\n"
    )
    found, artifact, alarms = read(tmp_path, text)
    assert found == {"q1": ["d1", "d3"], "q2": ["d5", "d2"]}
    counts = {k: v for k, v in artifact.counts.items() if v}
    assert counts == {
        "queries": 6, "lines": 7, "other_queries": 1, "duplicates": 1, "kept": 5,
        "unknown_documents": 1, "candidates": 4, "queries_without_candidates": 4,
        "queries_with_scores_against_ranks": 1, "queries_ordered_by_score": 1,
    }  # fmt: skip
    path = tmp_path / "x.run"
    assert [alarm.partition(": ")[2] for alarm in alarms] == [
        f"4 of 6 queries have no list in {path}; they count as 0",
        f"1 lines of {path} name documents that the collection lacks; they left",
        f"1 lines of {path} are of queries that are not judged here",
        f"1 lines of {path} name a document of the same list again",
        f"the ranks of 1 lists of {path} tell no order; these are ordered by score",
    ]


def test_a_table_s_own_order_counts(tmp_path):
    table = lists({"q1": (["d3", "d1"], [0.1, 0.9]), "q9": (["d1"], [1.0])})
    found, artifact, _ = read(tmp_path, table, "x.parquet")
    assert found == {"q1": ["d3", "d1"]} and artifact.counts["other_queries"] == 1
    (tmp_path / "trec").mkdir()
    assert read(tmp_path / "trec", "q1 Q0 d3 1 .1 t\nq1 Q0 d1 2 .9 t\n")[0] == found


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        ("q9 Q0 d1 1 1 t\n", "x.run", "none of the 6 queries is in it"),
        ("q1 Q0 x 1 1 t\n", "x.run", "none of its 1 documents is in the collection"),
        ("q1 Q0 d1 one 1 t\n", "x.run", "line 1"),
        ("q1 Q0 d1 1 nan t\n", "x.run", "a finite rank and score"),
        (lists({"q1": (["d1"], [float("nan")])}), "x.parquet", "expected finite scores"),
        (lists({"q1": (["d1", "d2"], [1.0])}), "x.parquet", "as many scores as documents"),
        (pa.table({"query_id": ["q1"]}), "x.parquet", "expected the columns"),
        ("no table", "x.parquet", "expected a Parquet table"),
    ],
)
def test_what_is_no_run_of_these_queries_is_an_error(tmp_path, content, name, words):
    with pytest.raises(ConfigError, match=words):
        read(tmp_path, content, name)


def test_a_query_of_two_rows_is_an_error(tmp_path):
    once = lists({"q1": (["d1"], [1.0])})
    with pytest.raises(ConfigError, match="expected one row, found a second"):
        read(tmp_path, pa.concat_tables([once, once]), "x.parquet")


# --- in a recipe ----------------------------------------------------------------------------------


def with_rows(recipe, text: str, *more: str) -> Experiment:
    return load(Experiment, recipe, [f"evaluation.rows={text}", *more])


def test_the_row_stands_beside_the_others_and_may_be_a_reference(recipe, tmp_path, monkeypatch):
    (tmp_path / "mine.run").write_text(RIGHT)
    rows = f"{{mine: {{type: run, path: {tmp_path}/mine.run}}}}"
    experiment = with_rows(recipe, rows, "reference=mine")
    experiment.check()
    assert expand(experiment)
    kinds = {name: kind for name, kind, _ in baseline_runs(experiment)}
    assert kinds["mine"] == "run" and list(kinds)[-1] == "oracle"
    builder = builder_here(experiment.store(), monkeypatch)
    only = [row for row in baseline_runs(experiment) if row[0] == "mine"]
    monkeypatch.setattr("raypipe.sweep.table_rows.baseline_runs", lambda _: iter(only))
    made = {row.name: row for row in baselines(experiment, builder, [MAIN], print)}
    values = made["mine"].results[MAIN][0]
    assert set(values["nDCG@10"].values()) == {1.0} and len(values["nDCG@10"]) == 12
    assert made["mine"].kind == "run" and made["mine"].tied == {} and made["mine"].seeds == ()
    assert values["Judged@10"]["q48"] == 0.5


def test_the_digest_is_that_of_the_content(recipe, tmp_path):
    def digest(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        rows = f"{{mine: {{path: {tmp_path}/{name}}}}}"
        return with_rows(recipe, rows).existing_run("mine").digest

    first = digest("a.run", RIGHT)
    assert digest("b.run", RIGHT) == first != digest("a.run", RIGHT.replace("d000", "d001"))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("{mine: {}}", "evaluation.rows.mine.path: expected a run file here or in sets"),
        ("{mine: {type: runs, path: x}}", "evaluation.rows.mine.type: unknown value 'runs'"),
        ("{mine: {paht: x}}", "evaluation.rows.mine.paht: unknown key 'paht'"),
        ("{mine: {sets: {other: x}}}", "rows.mine.sets.other: there is no such test set"),
        ('{"a\\nb": {path: x}}', "expected visible characters"),
    ],
)
def test_a_wrong_row_is_refused_when_it_is_read(recipe, rows, words):
    with pytest.raises(ConfigError) as caught:
        with_rows(recipe, rows)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["BM25", "oracle", "teacher: bi-encoder + first stage"])
def test_a_row_of_another_s_name_is_refused(recipe, name):
    rows = f'{{"{name}": {{path: x}}}}'
    with pytest.raises(ConfigError, match="another row of the table has this name"):
        expand(with_rows(recipe, rows))


def test_a_trial_of_the_row_s_name_is_refused(recipe):
    with pytest.raises(ConfigError, match="found 'contrastive', which is the row of something"):
        expand(with_rows(recipe, "{contrastive: {path: x}}"))


def test_a_file_that_is_not_there_is_refused_before_work(recipe, tmp_path):
    (tmp_path / "mine.run").write_text(RIGHT)
    experiment = with_rows(recipe, f"{{mine: {{path: {tmp_path}/mien.run}}}}")
    with pytest.raises(ConfigError, match=r"^evaluation\.rows\.mine: .*did you mean 'mine\.run'"):
        experiment.check()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "q01 Q0 d1 1 1 t\n",
            r"of data\.test, it has those of data\.train; name a run of the test",
        ),
        ("q40 Q0 d1 1 1 t\n", r"it has those of data\.validation"),
        ("7 Q0 d1 1 1 t\n", "it has '7', the set 'q"),
        ("", "it has no line"),
    ],
)
def test_a_run_of_other_queries_is_refused_before_work(recipe, tmp_path, text, words):
    (tmp_path / "mine.run").write_text(text)
    experiment = with_rows(recipe, f"{{mine: {{path: {tmp_path}/mine.run}}}}")
    look = look_at_run_rows(experiment, contents(Builder(experiment.store()), make=False))
    with pytest.raises(ConfigError, match=words):
        list(look)


def test_how_much_a_file_covers_is_said(recipe, tmp_path):
    (tmp_path / "mine.run").write_text("q50 Q0 d1 1 1 t\nq01 Q0 d1 1 1 t\n")
    experiment = with_rows(recipe, f"{{mine: {{path: {tmp_path}/mine.run}}}}")
    look = look_at_run_rows(experiment, contents(Builder(experiment.store()), make=False))
    assert list(look) == [
        f"evaluation.rows.mine: {tmp_path}/mine.run has 1 of 12 queries of data.test"
    ]


def test_a_set_without_a_file_has_a_table_without_the_row(recipe, tmp_path, beir_folder):
    (tmp_path / "mine.run").write_text(RIGHT)
    sets = f"evaluation.sets={{again: {{queries: {{dataset: 'beir:{beir_folder}', split: test}}}}}}"
    rows = f"{{mine: {{sets: {{again: {tmp_path}/mine.run}}}}}}"
    experiment = with_rows(recipe, rows, sets)
    experiment.check()
    assert experiment.existing_run("mine", MAIN) is None
    assert experiment.existing_run("mine", "again").file == f"{tmp_path}/mine.run"
    counts = {f"{what}/{role}": {"queries": 1, "docs": 1} for what in ("queries", "collection")
              for role in (MAIN, "again", "validation")}  # fmt: skip
    values = [{"nDCG@10": {"q48": 1.0}}]
    made = [Row("BM25", "first_stage", {MAIN: values, "again": values}),
            Row("mine", "run", {"again": values}),
            Row("lost", "trained", {}, error="x")]  # fmt: skip
    main, again = judged_on(set_facts(experiment, counts, [MAIN, "again"]), made)
    assert (main.rows, again.rows) == (("BM25", "lost"), ())


def test_paths_say_which_set_they_are_of():
    row = RunRow(path="a", sets={"b": "c"})
    assert row.paths() == {MAIN: "a", "b": "c"}
