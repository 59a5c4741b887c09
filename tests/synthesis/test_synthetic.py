"""Synthetic queries in a recipe: what may be said, which steps it names, what a set holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.commands.mine import dry_run
from raypipe.config import ConfigError, to_yaml
from raypipe.datasets.steps import QRELS_FILE, QUERIES_FILE, Collection, Queries, QuerySet
from raypipe.program import COMMANDS
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.storage.artifacts import Step, Store
from raypipe.storage.builder import Builder
from raypipe.synthesis.generated import GENERATED
from raypipe.synthesis.held_out import Trainable
from raypipe.synthesis.known_items import KnownItems, SyntheticQueries, synthetic_sets
from raypipe.synthesis.notes import synthetic_notes
from raypipe.synthesis.synthetic import Synthetic

ROWS = [
    ("d1", "train", "title", "Cats at night"),
    ("d1", "train", "web", "why do cats purr"),
    ("d2", "train", "title", "Introduction"),
    ("d3", "validation", "title", "introduction"),
    ("d3", "validation", "web", "dogs that bark"),
    ("d4", "test", "web", "fish"),
]


def table(rows=ROWS) -> pa.Table:
    records = [
        {"query_id": f"{d}#{kind}", "doc_id": d, "split": split, "type": kind, "text": text}
        for d, split, kind, text in rows
    ]
    return pa.Table.from_pylist(records, schema=GENERATED)


@dataclass(frozen=True)
class Given(Step):
    """Generated queries as an artifact."""

    kind: ClassVar[str] = "generated"
    name: ClassVar[str] = "given"  # type: ignore[misc]

    def run(self, attempt: Any, context: Any) -> Mapping[str, Any]:
        attempt.put_table(table())
        return {"rows": 4, "queries": 6, "queries_web": 3, "dropped_empty": 2}


def given(beir_folder, **fields) -> SyntheticQueries:
    synthetic = Synthetic(dataset=f"beir:{beir_folder}", **fields)
    return SyntheticQueries(synthetic, True, generated=Given(), split=synthetic.split)


def test_texts_of_several_passages_name_no_known_item():
    items = KnownItems("x", table(), "train")
    assert [query_id for query_id, _ in items.queries()] == ["d1#title", "d1#web"]
    assert list(items.qrels()) == [("d1#title", "d1", 1), ("d1#web", "d1", 1)]
    assert items.counts() == {"dropped_written_for_several_passages": 1}


def test_a_set_is_a_normal_set_of_queries(beir_folder, tmp_path):
    artifact = Builder(Store(str(tmp_path / "storage"))).get(given(beir_folder))
    folder = artifact.local()
    queries = pa.ipc.open_file(str(folder / QUERIES_FILE)).read_all().to_pylist()
    assert {row["query_id"]: row["text"] for row in queries} == {
        "d1#title": "Cats at night",
        "d1#web": "why do cats purr",
    }
    judged = pq.read_table(folder / QRELS_FILE).to_pylist()
    assert {(row["query_id"], row["doc_id"], row["relevance"]) for row in judged} == {
        ("d1#title", "d1", 1),
        ("d1#web", "d1", 1),
    }
    counts = artifact.counts
    assert counts["queries"] == 2 and counts["dropped_written_for_several_passages"] == 1
    assert counts["queries_of_title"] == counts["queries_of_web"] == 1


def test_limit_and_split_choose(beir_folder, tmp_path):
    builder = Builder(Store(str(tmp_path / "storage")))
    assert builder.get(given(beir_folder, limit=1)).counts["queries"] == 1
    validation = builder.get(given(beir_folder, split="validation"))
    assert validation.counts["queries_of_web"] == validation.counts["queries"] == 1
    held = given(beir_folder, split="test", hold_out={"passages": 3})
    assert builder.get(held).counts["queries"] == 1
    with pytest.raises(ConfigError, match="no query left"):
        builder.get(given(beir_folder, skip=2))


def test_what_was_written_and_dropped_is_said_once(beir_folder):
    train = given(beir_folder)
    counts = {
        train.generated.digest: {"rows": 4, "queries": 6, "queries_web": 3, "dropped_empty": 2},
        train.digest: {"queries": 2, "queries_of_web": 2},
        train.queries.drawn().digest: {"passages_missing": 7, "documents_left_out_copy": 5},
    }
    notes = list(
        synthetic_notes(
            [("training queries", train), ("again", train)], lambda step: counts[step.digest]
        )
    )
    assert notes == [
        f"synthetic queries over beir:{beir_folder}: 6 for 4 passages (extractive: web 3); 7 "
        "passages fewer than asked for: the corpus has no more; dropped: empty 2; documents that "
        "leave training and its lists: copy 5; hold_out: none, so training may have read what is "
        "relevant in the test",
        "training queries: 2 synthetic queries (web 2)",
    ]


# --- in a recipe ----------------------------------------------------------------------------------


def overrides(beir_folder, **more) -> list[str]:
    extra = "".join(f", {name}: {value}" for name, value in more.items())
    corpus = f"dataset: 'beir:{beir_folder}', passages: 30{extra}"
    return [
        f"data.train={{type: synthetic, {corpus}}}",
        f"data.validation={{type: synthetic, {corpus}, split: validation}}",
    ]


def test_a_recipe_with_synthetic_queries_names_their_steps(recipe, beir_folder):
    experiment = load(Experiment, recipe, overrides(beir_folder, hold_out="test_judged"))
    train, validation = experiment.training().queries(), experiment.queries("validation")
    assert len(synthetic_sets(experiment.query_sets().values())) == 2
    assert train.generated.digest == validation.generated.digest and train != validation
    human = experiment.query_set("test")
    assert train.queries.test == human and type(experiment.queries("test")) is Queries
    assert experiment.collection("train").digest == Collection(human).digest
    assert isinstance(experiment.training().candidates(), Trainable)
    stage = experiment.trained().chain()[0]
    assert stage.query_tokens.texts == train
    again = experiment.model_validate(experiment.model_dump(mode="json"))
    assert again.training().groups().digest == experiment.training().groups().digest
    assert "type: synthetic" in to_yaml(experiment)


def test_a_dry_run_says_what_is_not_written_yet(recipe, beir_folder):
    said: list[str] = []
    dry_run(load(Experiment, recipe, overrides(beir_folder)), said.append)
    assert any(
        line.startswith("data.train: synthetic train queries") and "not written yet" in line
        for line in said
    )
    assert "groups of contrastive, distil: known when the queries are written" in said
    assert any(line.startswith("to do  train") or "queries of" in line for line in said)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("data.train.type=syntetic", "did you mean 'synthetic'"),
        ("data.train.passagez=3", "did you mean 'passages'"),
        ("data.train.passages=1", "greater than or equal to 2"),
        ("data.train.split=test", "split: test asks for the passages that are held out"),
        ("data.validation.split=train", "data.validation: expected other passages than those of"),
        ("data.train.positive_relevance=2", "own passage has relevance 1"),
        ("data.train.generator.queries=[titel]", "did you mean 'title'"),
    ],
)
def test_contradictions_are_refused_when_the_recipe_is_read(recipe, beir_folder, change, words):
    with pytest.raises(ConfigError, match=words):
        load(Experiment, recipe, [*overrides(beir_folder), change])


def test_negatives_of_the_whole_collection_would_be_held_out_passages(recipe, beir_folder):
    given = overrides(beir_folder, hold_out="{passages: 5}")
    uniform = "groups.negatives={type: uniform, count: 2}"
    with pytest.raises(ConfigError, match=r"groups\.negatives: found negatives of the whole"):
        load(Experiment, recipe, [*given, uniform])
    load(Experiment, recipe, [*overrides(beir_folder), uniform])


def test_documents_that_are_not_there_are_an_error_before_work(recipe, tmp_path):
    change = f"data.train={{type: synthetic, dataset: 'beir:{tmp_path}'}}"
    with pytest.raises(ConfigError, match=r"data\.train: .*corpus\.jsonl"):
        load(Experiment, recipe, [change]).check(model=False)


def test_a_plain_set_of_queries_is_as_it_was():
    plain = QuerySet(dataset="pydoc", split="train")
    assert plain.chosen(require_positive=True, precision="fp32") == Queries(plain, True)
    assert plain.title == "pydoc train" and plain.trained_on(Given()) == Given()


# --- what docs/no-labels.md says ------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[2]


def test_the_recipe_of_the_page_reads_documents_alone(beir_folder, tmp_path):
    page = (ROOT / "docs" / "no-labels.md").read_text("utf-8")
    block = page.partition("```yaml\n")[2].partition("```")[0]
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "corpus.jsonl").write_bytes((beir_folder / "corpus.jsonl").read_bytes())
    shipped = ROOT / "jobs" / "recipes" / "zero-label-small.yaml"
    (tmp_path / "zero-label-small.yaml").write_bytes(shipped.read_bytes())
    (tmp_path / "my.yaml").write_text(block.replace("/my/corpus", str(corpus)))
    experiment = load(Experiment, tmp_path / "my.yaml", ["precision=fp32"])
    experiment.check(model=False)
    sets = synthetic_sets(experiment.query_sets().values())
    assert {step.split for step in sets} == {"train", "validation", "test"}
    assert len({step.generated.digest for step in sets}) == 1, "they share one draw"


def test_the_commands_of_the_page_are_there():
    page = (ROOT / "docs" / "no-labels.md").read_text("utf-8")
    commands = re.findall(r"^    raypipe (\w+) ([\w-]+)", page, re.M)
    assert [command for command, _ in commands] == ["synthesize", "train"]
    for command, name in commands:
        assert command in COMMANDS and (ROOT / "jobs" / "recipes" / f"{name}.yaml").is_file()
