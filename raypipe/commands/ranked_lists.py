"""Ranks documents with a model that exists: re-ranks a run, or retrieves from a corpus.

No recipe, no training: the steps are those of recipes, so that chunks resume and artifacts are
used again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.candidates import Source
from raypipe.candidates.bm25.source import Bm25
from raypipe.candidates.dense.source import Dense
from raypipe.candidates.trec_run import TrecRun
from raypipe.cluster import expect_ray, may_start_late
from raypipe.commands.mine import join_cluster
from raypipe.config import ConfigError
from raypipe.datasets.own_files import is_own
from raypipe.datasets.steps import QRELS_FILE, Collection, Listed, Queries, QuerySet
from raypipe.evaluation.measures import bounded, evaluate, means
from raypipe.evaluation.ranking import write_trec_run
from raypipe.inference.lists import Lists
from raypipe.models.backbone import Backbone
from raypipe.names import trec_token
from raypipe.progress import Say
from raypipe.resources import Resources, default_precision
from raypipe.runs.baselines import TeacherRun
from raypipe.storage.artifacts import Artifact, Step, Store
from raypipe.storage.builder import Builder
from raypipe.storage.files import home
from raypipe.teachers.ready_model import read_as_trained, scorer_of, template_of

MEASURES = ("nDCG@10", "RR@10", "Judged@10")
Precision = Literal["auto", "bf16", "fp16", "fp32"]


@dataclass(frozen=True)
class Workplace:
    """Where and how the work is done."""

    storage: str | None = None
    """Of artifacts; None is $RAYPIPE_HOME/storage."""
    precision: Precision = "auto"
    resources: Resources = Resources()  # noqa: RUF009 - frozen


@dataclass(frozen=True)
class Before:
    """What a re-ranked first stage was worth."""

    label: str
    values: Mapping[str, float]
    """As those of `Ranked`."""


@dataclass(frozen=True)
class Ranked:
    """Ranked lists, and what they cost."""

    artifact: Artifact
    tag: str
    depth: int | None
    """Documents of each list that the model ranked; None for all."""
    pairs: int
    seconds: float
    """0 if the lists were there."""
    values: Mapping[str, float]
    """Means by measure over the judged queries; empty where nothing is judged."""
    judged: int
    before: Before | None = None
    """The lists as they came; None where nothing was re-ranked."""
    notes: Sequence[str] = ()
    """What a reader of the lists should know."""

    def write(self, path: Path) -> int:
        """Write a TREC run (gzipped for .gz) or, for .parquet, a table.

        Returns:
            How many lists have a document.
        """
        table: pa.Table = self.artifact.table()
        if path.suffix == ".parquet":
            pq.write_table(table, path)
        else:
            write_trec_run(path, table, self.tag, depth=self.depth)
        return sum(map(bool, table["doc_ids"].to_pylist()))

    def lines(self) -> list[str]:
        """What was done, in sentences."""
        said = []
        if self.seconds and self.pairs:
            rate = self.pairs / self.seconds
            said.append(f"{self.pairs:,} pairs in {self.seconds:.1f} s, {rate:,.0f} pairs/s")
        elif not self.seconds:
            said.append("the lists were there: nothing was scored again")
        if self.values:
            said.append(f"{_figures(self.values)} ({self.judged} judged queries)")
            if self.before is not None:
                said.append(f"before, of {self.before.label}: {_figures(self.before.values)}")
        return [*said, *self.notes]


def _figures(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in values.items())


def rerank(
    model: str,
    data: QuerySet,
    run: str | None,
    depth: int,
    place: Workplace,
    *,
    max_length: int | None = None,
    label: int | None = None,
    measures: Sequence[str] = MEASURES,
    say: Say = print,
) -> Ranked:
    """Re-rank the first `depth` documents of each list; the rest stays behind them.

    Args:
        model: hub name, folder or package of a cross-encoder, or of a bi-encoder.
        run: a TREC run file; None retrieves with BM25 first.
        max_length: tokens per pair, or per text of a bi-encoder; None is what a checkpoint of
            raypipe's was trained with, or what the model reads, at most 512.
        label: of a head with several labels, the one that means relevant.

    Raises:
        ConfigError: model, data or run cannot be used; nothing was scored then.
    """
    if model == "bm25":
        raise ConfigError("--model bm25 is for retrieve; rerank needs a model")
    expect_ray(models=True)
    source: Source = Bm25(depth=max(depth, 100)) if run is None else _run(run)
    scorer = scorer_of(model, max_length, label)
    scorer.check()
    data = texts_as_trained(model, data, say)
    builder, precision = _start(data, source, place, say)
    collection, queries = Collection(data), Queries(data, False, keep_unjudged=True)
    first = source.candidates(collection, queries, precision)
    listed = Listed(collection, first, depth)  # no other document is tokenised
    scores = scorer.scores(Lists(first, None, listed, queries, depth), precision)
    lists = builder.get(first)
    notes = [] if run is None else _notes_on(run, lists)
    before, _ = _judged(lists, queries, builder, measures, source)
    ranked = _ranked(
        TeacherRun(scores, scorer.values, first, queries, depth),
        queries,
        builder,
        trec_token(Backbone(model).name),
        depth,
        measures,
        source,
        scores,
    )
    return replace(ranked, before=Before(source.label, before), notes=notes)


def retrieve(
    model: str,
    data: QuerySet,
    depth: int,
    place: Workplace,
    *,
    max_length: int | None = None,
    measures: Sequence[str] = MEASURES,
    say: Say = print,
) -> Ranked:
    """The `depth` best documents of the corpus for every query.

    Args:
        model: hub name, folder or package of a bi-encoder, or `bm25`.

    Raises:
        ConfigError: model or data cannot be used.
    """
    source: Source
    if model == "bm25":
        source = Bm25(depth=depth)
    else:
        source = Dense(backbone=model, max_length=max_length, depth=depth)
    late = model == "bm25" and may_start_late(place.resources)
    if not late:
        expect_ray(models=model != "bm25")
    source.check()
    if model != "bm25":
        data = texts_as_trained(model, data, say)
    builder, precision = _start(data, source, place, say, late=late)
    collection, queries = Collection(data), Queries(data, False, keep_unjudged=True)
    step = source.candidates(collection, queries, precision)
    tag = trec_token("bm25" if model == "bm25" else Backbone(model).name)
    return _ranked(step, queries, builder, tag, None, measures, source)


def texts_as_trained(model: str, data: QuerySet, say: Say) -> QuerySet:
    """The data with documents' texts made of columns as in the model's training, if its files have
    these columns and no other template is named."""
    template = template_of(model)
    if template is None or data.text_template is not None or not is_own(data.dataset):
        return data
    try:
        alike = read_as_trained(data, template)
    except ConfigError as error:
        say(f"texts of documents are not made as in training, of {template}: {error}")
        return data
    say(f"texts of documents are made as in training: {template}")
    return alike


def _notes_on(run: str, lists: Artifact) -> list[str]:
    """What a run file lacks of the data set's queries, and has that its corpus lacks."""
    found: list[list[str]] = lists.table()["doc_ids"].to_pylist()
    notes = []
    if empty := sum(not docs for docs in found):
        notes.append(f"{empty} of {len(found)} queries have no list in {run}; they count as 0")
    if unknown := lists.counts.get("unknown_documents"):
        notes.append(f"lines of {run} that name documents which the corpus lacks: {unknown}")
    if tied := lists.counts.get("queries_ordered_by_score"):
        notes.append(f"lists of {run} whose ranks tell no order, ordered by score: {tied}")
    return notes


def _run(path: str) -> TrecRun:
    file = Path(path).expanduser().absolute()
    source = TrecRun(paths=(str(file),), depth=1_000_000, name=file.name)
    source.check()
    return source


def _start(
    data: QuerySet, source: Source, place: Workplace, say: Say, *, late: bool = False
) -> tuple[Builder, str]:
    """Check data and storage, join or start Ray; a builder there, and the precision.

    Args:
        late: as in `join_cluster`.
    """
    data.open().check()
    source.check()
    store = Store(place.storage or str(home() / "storage"))
    store.check_writable()
    precision = default_precision() if place.precision == "auto" else place.precision
    place.resources.check_precision(precision)
    builder = Builder(store)
    join_cluster(builder, place.resources, precision, say, [store.uri], late=late)
    return builder, precision


def _ranked(
    step: Step,
    queries: Queries,
    builder: Builder,
    tag: str,
    depth: int | None,
    measures: Sequence[str],
    source: Source,
    scores: Step | None = None,
) -> Ranked:
    """Make the lists, and judge them where there are judgements."""
    begun = time.monotonic()
    artifact = builder.get(step)
    seconds = time.monotonic() - begun if step.digest in builder.made else 0.0
    values, judged = _judged(artifact, queries, builder, measures, source)
    pairs = 0 if scores is None else int(builder.get(scores).counts.get("pairs", 0))
    return Ranked(artifact, tag, depth, pairs, seconds, values, judged)


def _judged(
    lists: Artifact, queries: Queries, builder: Builder, measures: Sequence[str], source: Source
) -> tuple[dict[str, float], int]:
    """Means by measure, empty where nothing is judged, and how many queries are."""
    qrels = pq.read_table(builder.get(queries).local() / QRELS_FILE)
    if not len(qrels):
        return {}, 0
    names = tuple(dict.fromkeys(bounded(name, source.depth) for name in measures))
    values = means(evaluate(lists.table(), qrels, names, queries.queries.positive_relevance))
    return values, len(set(qrels["query_id"].to_pylist()))
