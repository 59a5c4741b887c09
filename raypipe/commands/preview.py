"""What `--dry-run` reads before anything is measured: data, files of ids, groups, the tokenizer.

Everything that can be known in seconds is said in one line each; what would certainly fail after
hours is an error now.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe.commands.checks import check_held_out
from raypipe.commands.existing_rows import look_at_run_rows
from raypipe.commands.listed_files import ListedIds, listed_ids, shipped_ids
from raypipe.commands.preview_model import pooler_line, token_line
from raypipe.commands.query_facts import Documents, missing_facts, own_facts
from raypipe.commands.query_sets import NamedQueries, Read, all_queries, contents
from raypipe.config import ConfigError
from raypipe.datasets.steps import DOCS_FILE, Collection, Queries, QuerySet
from raypipe.evaluation.results import MAIN
from raypipe.groups.form import Groups
from raypipe.groups.training_set import TrainingData
from raypipe.names import quoted
from raypipe.recipe.trials import Trial
from raypipe.storage.builder import Builder
from raypipe.sweep.encoders import trained_experiments
from raypipe.sweep.mining_notes import each_positive_line
from raypipe.sweep.plan import training_sets
from raypipe.synthesis.known_items import SyntheticQueries
from raypipe.tables.plain_text import mostly_unspaced
from raypipe.tables.text_table import TextTable
from raypipe.train.group_reader import GroupReader
from raypipe.train.settings import too_few, too_short

FIRST = 1000
"""Documents that are read of a large collection."""
TOKENISED = 200
"""Queries and documents that every tokenizer is tried on."""
_DROPS = (
    *("empty_queries", "duplicate_queries", "queries_without_qrels", "queries_without_positive"),
    *("qrels_without_query", "duplicate_qrels"),
)


class FirstDocuments:
    """The documents with text that were read of a collection."""

    def __init__(self, docs: Sequence[tuple[str, str]]) -> None:
        self._texts = {doc_id: text for doc_id, text in reversed(docs) if text}
        self._ids = list(self._texts)[::-1]
        self._row_of = {doc_id: row for row, doc_id in enumerate(self._ids)}

    def __len__(self) -> int:
        return len(self._ids)

    def rows_of(self, asked: Sequence[str]) -> np.ndarray:
        """The row of each id, -1 where it was not read."""
        return np.array([self._row_of.get(doc_id, -1) for doc_id in asked], np.int64)

    def text(self, index: int) -> str:
        """The text of a document."""
        return self._texts[self._ids[index]]

    def ids(self) -> pa.ChunkedArray:
        """All ids in order."""
        return pa.chunked_array([self._ids], pa.string())


def preview(trials: Sequence[Trial], builder: Builder, *, model: bool) -> Iterator[str]:
    """Lines about what the trials would read; nothing is stored.

    Args:
        model: whether a backbone's tokenizer is tried.

    Raises:
        ConfigError: at the end, with everything that would certainly fail later.
    """
    looking = _Looking(trials, builder, contents(builder, make=False))
    yield from looking.tried(looking.held_out)
    for named in looking.sets:
        yield from looking.tried(partial(looking.queries, named))
    for named in looking.sets:
        yield from looking.tried(partial(looking.first_stage, named))
    yield from looking.tried(looking.run_rows)
    yield from looking.suites()
    for stages, data in training_sets(trials).items():
        yield from looking.tried(partial(looking.groups, stages, data))
    yield from looking.tried(partial(looking.steps, model))
    if model:
        yield from looking.tried(looking.tokens)
        yield from looking.tried(looking.heads)
    if looking.problems:
        raise ConfigError("\n".join(dict.fromkeys(looking.problems)))


@dataclass
class _Looking:
    trials: Sequence[Trial]
    builder: Builder
    read: Read
    problems: list[str] = field(default_factory=list)
    _documents: dict[str, tuple[Documents, bool] | None] = field(default_factory=dict)
    _listed: dict[str, ListedIds | None] = field(default_factory=dict)
    _most: dict[str, int] = field(default_factory=dict)
    """By the digest of groups, how many there are at most."""

    @cached_property
    def sets(self) -> list[NamedQueries]:
        """Those that the recipe names, and those of its suites that stand in the store."""
        first = self.trials[0].experiment
        roles = [
            MAIN,
            *first.evaluation.sets,
            *(r for r in first.evaluation.suite_sets() if r not in self.unread),
        ]
        return all_queries(trained_experiments(self.trials), roles)

    @cached_property
    def unread(self) -> list[str]:
        """The suites' test sets that would have to be fetched."""
        first = self.trials[0].experiment
        suites = first.evaluation.suite_sets()
        return [role for role in suites if self.builder.find(first.queries(role)) is None]

    def suites(self) -> Iterator[str]:
        """What is not looked at."""
        if self.unread:
            names = ", ".join(self.unread)
            yield f"evaluation.suites: not read, they are to be fetched: {names}"

    def tried(self, look: Callable[[], Iterable[str]]) -> Iterator[str]:
        """The lines of a look; what it refuses is kept for the end."""
        try:
            yield from look()
        except ConfigError as error:
            self.problems.append(str(error))

    def held_out(self) -> list[str]:
        return check_held_out(trained_experiments(self.trials), self.read)

    def run_rows(self) -> Iterator[str]:
        """Of the runs that are rows."""
        return look_at_run_rows(self.trials[0].experiment, self.read)

    # --- queries, judgements, documents --------------------------------------------------------

    def queries(self, named: NamedQueries) -> Iterator[str]:
        """What is in a set, in its collection, and how they fit."""
        if self.unwritten(named.queries):
            yield f"{named.field}: {named.queries.queries.title}; not written yet"
            return
        counts = self.read(named.queries).counts
        drops = ", ".join(f"{key.replace('_', ' ')} {counts[key]:,}" for key in _DROPS
                          if counts.get(key))  # fmt: skip
        yield (
            f"{named.field}: {counts['queries']:,} queries, {counts['qrels']:,} judgements"
            f"{f' ({drops})' if drops else ''}"
        )
        first_time = named.collection.digest not in self._documents
        if (known := self.documents(named.collection)) is None:
            if first_time:
                yield f"documents of {named.collection.name}: not read, they are to be fetched"
            return
        docs, complete = known
        if first_time:
            yield _documents_line(named, docs, complete)
        content = self.read(named.queries)
        if complete:
            yield from missing_facts(named, content, docs).notes
        yield from own_facts(named, content, docs).notes

    def unwritten(self, queries: Queries) -> bool:
        """Whether a set is synthetic, and a job has to write it first."""
        return isinstance(queries, SyntheticQueries) and self.builder.find(queries) is None

    def documents(self, collection: Collection) -> tuple[Documents, bool] | None:
        """What can be read of a collection, and whether that is all."""
        if collection.digest not in self._documents:
            self._documents[collection.digest] = None  # also if what follows is refused
            artifact = self.builder.find(collection)
            if artifact is not None:
                docs: Documents = TextTable(artifact.local() / DOCS_FILE)
                self._documents[collection.digest] = (docs, True)
            elif (beginning := collection.queries.open().beginning(FIRST)) is not None:
                found = (FirstDocuments(beginning.docs), beginning.complete)
                self._documents[collection.digest] = found
        return self._documents[collection.digest]

    # --- files of first stages and teachers ----------------------------------------------------

    def first_stage(self, named: NamedQueries) -> Iterator[str]:
        """Of the run files behind a set."""
        for source in _parts(named.source, "sources"):
            what = f"{named.field}: {source.type} {source.label}"
            if (listed := self.listed(source, named)) is not None:
                yield self.match(what, listed, named)
            elif source.type == "scored_docs":
                yield f"{what}: not read, they are to be fetched"

    def listed(self, choice: Any, named: NamedQueries) -> ListedIds | None:
        """What the files of a choice name, which of a data set's own lists are this one's."""
        if choice.type == "scored_docs":
            own = choice.dataset
            queries = QuerySet(dataset=own) if own else named.queries.queries
            return shipped_ids(queries.open(), self.query_ids)
        key = choice.model_dump_json()
        if key not in self._listed:
            self._listed[key] = listed_ids(choice, self.query_ids)
        return self._listed[key]

    @cached_property
    def query_ids(self) -> frozenset[str]:
        """Of all sets."""
        ids = (self.read(named.queries).queries["query_id"].to_pylist() for named in self.sets)
        return frozenset(query_id for of_set in ids for query_id in of_set)

    def match(self, what: str, listed: ListedIds, named: NamedQueries) -> str:
        """How the files' ids fit the data set.

        Raises:
            ConfigError: the files, read whole, have no query or no document of it.
        """
        if self.unwritten(named.queries):
            return f"{what}: not compared, the queries are not written yet"
        ids = self.read(named.queries).queries["query_id"].to_pylist()
        shared = sum(query_id in listed.query_ids for query_id in ids)
        size = "" if listed.complete else ", of what was read of them"
        line = f"{what}: has {shared:,} of {len(ids):,} queries of {named.field}{size}"
        if not shared and listed.complete:
            theirs = min(listed.query_ids, default="nothing")
            raise ConfigError(
                f"{line}: it has {quoted(theirs)}, the set {quoted(ids[0])}; the file's query ids "
                "must be those of the data set"
            )
        if listed.not_finite:
            line += f", {listed.not_finite:,} of {listed.values:,} values are NaN or infinite"
            if listed.not_finite == listed.values and listed.complete:
                raise ConfigError(f"{line}: the model that wrote them has diverged, score again")
        known = self.documents(named.collection)
        if known is None or not known[1]:
            return line
        some = sorted(listed.doc_ids)
        there = int((known[0].rows_of(some) >= 0).sum())
        line += f", and {there:,} of its {len(some):,} documents are in the collection"
        if some and not there:
            raise ConfigError(
                f"{line}: it has {quoted(some[0])}, the collection "
                f"{quoted(known[0].ids()[0].as_py())}; the file's document ids must be those of "
                "the data set"
            )
        return line

    # --- groups --------------------------------------------------------------------------------

    def groups(self, stages: str, data: TrainingData) -> Iterator[str]:
        """How many groups there are, at most."""
        named = NamedQueries(f"groups of {stages}", data.queries(), data.source)
        if self.unwritten(named.queries):
            yield f"groups of {stages}: known when the queries are written"
            return
        wanted: set[str] | None = None
        for teacher in _parts(data.teacher, "teachers") if data.teacher else ():
            if (listed := self.listed(teacher, named)) is not None:
                yield self.match(f"teacher {teacher.type} of {stages}", listed, named)
                if listed.complete:
                    wanted = listed.query_ids if wanted is None else wanted & listed.query_ids
        groups, negatives = data.groups(), data.negatives()
        for step, words in ((groups, "there are"), (negatives, "at most")):
            if (artifact := self.builder.find(step)) is not None:
                self._most[groups.digest] = int(artifact.counts["groups"])
                yield f"groups of {stages}: {words} {self._most[groups.digest]:,}"
                return
        if (triples := data.training_set.triples) is not None:
            if (listed := self.listed(triples, named)) is not None:
                yield self.match(f"triples of {stages}", listed, named)
            if listed is None or not listed.complete:
                yield f"groups of {stages}: known when the triples are read"
                return
            most = min(listed.lines, triples.limit or listed.lines)
        else:
            settled = data.training_set.plain().settled(*self._positives(named))
            if settled.groups_per_query != data.training_set.groups_per_query:
                yield from each_positive_line(stages, settled, *self._positives(named))
            most = self._bound(settled, named, wanted)
        self._most[groups.digest] = most
        yield f"groups of {stages}: at most {self._most[groups.digest]:,}"

    def _positives(self, named: NamedQueries) -> tuple[int, int]:
        """(judged positives, queries that have one)."""
        qrels, least = self.read(named.queries).qrels, named.queries.queries.positive_relevance
        asked = qrels.filter(pc.greater_equal(qrels["relevance"], least))["query_id"]
        return len(asked), len(asked.unique())

    def _bound(self, groups: Groups, named: NamedQueries, wanted: set[str] | None) -> int:
        """Queries, or positives, that can have a group.

        Args:
            wanted: the queries that the teacher's files have; None where that is not known.
        """
        content = self.read(named.queries)
        ids = content.queries["query_id"]
        if groups.groups_per_query == "each_positive":
            least = named.queries.queries.positive_relevance
            ids = content.qrels.filter(pc.greater_equal(content.qrels["relevance"], least))[
                "query_id"
            ]
        return sum(wanted is None or query_id in wanted for query_id in ids.to_pylist())

    def steps(self, model: bool) -> Iterator[str]:
        """Whether every stage has groups for a step, and, of groups that stand, values to fit; and
        which stages have so few steps that nothing moves.

        Args:
            model: whether backbones are there, which tell how a stage is cut.
        """
        said: dict[str, None] = {}
        for experiment in trained_experiments(self.trials):
            for stage in experiment.trained().chain():
                artifact = self.builder.find(stage.groups)
                if artifact is not None and model:
                    stage.check(GroupReader(artifact.local()), sys.maxsize, use_gpu=True)
                most = self._most.get(stage.groups.digest, sys.maxsize)
                used = min(most, stage.config.limit or most)
                if used < (per_step := stage.config.queries_per_step):
                    where = f"stages.{stage.stage_name}.queries_per_step"
                    raise ConfigError(f"{where}: at most {too_few(used, per_step)}")
                if line := too_short(stage.stage_name, stage.config, used):
                    said.setdefault(line)
        yield from said

    # --- tokens --------------------------------------------------------------------------------

    def tokens(self) -> Iterator[str]:
        """Of the training texts, by each backbone's tokenizer."""
        seen: set[str] = set()
        named = self.sets[0]
        known = self.documents(named.collection)
        readable = known is not None and not self.unwritten(named.queries)
        for trial in self.trials if readable else ():
            for stage in trial.experiment.trained().chain():
                source, reading = stage.model.backbone, stage.truncation
                key = f"{source} {reading.model_dump_json()}"
                if known is not None and key not in seen:
                    seen.add(key)
                    docs = [known[0].text(row) for row in range(min(len(known[0]), TOKENISED))]
                    queries = self.read(named.queries).queries["text"][:TOKENISED].to_pylist()
                    yield token_line(source, reading, queries, docs)

    def heads(self) -> Iterator[str]:
        """What each model's head reads through that was never trained."""
        models = [model for trial in self.trials for model in trial.experiment.models.values()]
        for model in {model.model_dump_json(): model for model in models}.values():
            if (line := pooler_line(model)) is not None:
                yield line


def _parts(choice: Any, name: str) -> list[Any]:
    """A source or teacher, or those that it consists of."""
    return list(getattr(choice, name, {"": choice}).values())


def _documents_line(named: NamedQueries, docs: Documents, complete: bool) -> str:
    characters = [len(docs.text(row)) for row in range(min(len(docs), FIRST))]
    number = f"{len(docs):,}" if complete else f"the first {len(docs):,}"
    unspaced = mostly_unspaced(docs.text(row) for row in range(min(len(docs), 200)))
    script = "; a script without spaces" if unspaced else ""
    middle = int(np.median(characters)) if characters else 0
    return (
        f"documents of {named.collection.name}: {number} with text, of about {middle:,} "
        f"characters{script}"
    )
