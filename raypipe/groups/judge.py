"""A language model as judge of sampled negatives: false ones are dropped, promoted, or shown only.

Negatives that a first stage ranks high are often relevant and not judged (Qu et al. 2021,
2010.08191). A cheap model looks at all of them; a strong one at those that the cheap one calls
relevant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from raypipe.config import NOT_SEMANTIC, Config, ConfigError
from raypipe.datasets.steps import Collection, Queries
from raypipe.groups.judged_page import JudgedRow, write_page
from raypipe.inference.lists import Lists
from raypipe.inference.llm import AnyEngine
from raypipe.records import CANDIDATES, NEGATIVES, TEACHER, candidate_row
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.storage.parts import part_name
from raypipe.tables.rows import Rows
from raypipe.teachers.llm.teacher import LlmScores, PointwiseLLM
from raypipe.teachers.values import TeacherValues

EVERY = 1 << 30
"""A depth that cuts no list: a judge is asked about all negatives."""
BLOCK = 8192
"""Groups that are Python objects at a time, and per file."""
PAST = {"drop": "dropped", "promote": "promoted", "keep": "kept"}
"""What was done to a negative, in counters."""


class LlmJudge(Config):
    """Asks about each sampled negative whether it answers the query, and relabels those that do."""

    type: Literal["llm_judge"] = "llm_judge"
    engine: AnyEngine
    """The model whose word counts: `transformers`, `http` or `vllm`."""
    filter_engine: AnyEngine | None = None
    """A cheaper model that is asked first; what it calls not relevant stays a negative. Null asks
    the other about all negatives."""
    relabel: Literal["drop", "promote", "keep"] = "drop"
    """What becomes of a negative that both call relevant. drop: it leaves its group. promote: it is
    a positive of its group. keep: it stays, and is counted and shown on the page."""
    instruction: str | None = None
    """Your own wording of the request instead of the published wording."""
    queries_per_chunk: int | None = Field(None, ge=1)
    """The unit of work and of resume. Null is 8 where a model is loaded, and 64 where a service is
    called."""
    max_failed: Annotated[float, NOT_SEMANTIC] = Field(0.01, ge=0, le=1)
    """Share of a chunk's requests that may fail; above it the job stops, finished chunks stay."""

    def check(self) -> None:
        """The engines have what they need, as far as can be told.

        Raises:
            ConfigError: a model, a package or a setting is missing.
        """
        for engine in (self.filter_engine, self.engine):
            if engine is not None:
                self._asking(engine).check()

    def negatives(self, sampled: Any, precision: str) -> Relabelled:
        """The step that relabels the rows of `records.NEGATIVES` of a step with `queries` and
        `collection`."""
        to_judge: Step = ToJudge(sampled)
        first = None
        if self.filter_engine is not None:
            first = self._verdicts(self.filter_engine, to_judge, sampled, precision)
            to_judge = Suspected(to_judge, first)
        verdicts = self._verdicts(self.engine, to_judge, sampled, precision)
        return Relabelled(sampled, first, verdicts, self.relabel)

    def _verdicts(
        self, engine: AnyEngine, to_judge: Step, sampled: Any, precision: str
    ) -> JudgeVerdicts:
        lists = Lists(to_judge, None, sampled.collection, sampled.queries, EVERY)
        return JudgeVerdicts(self._asking(engine), lists, precision)

    def _asking(self, engine: AnyEngine) -> PointwiseLLM:
        return PointwiseLLM(
            engine=engine,
            depth=EVERY,
            instruction=self.instruction,
            queries_per_chunk=self.queries_per_chunk,
            max_failed=self.max_failed,
        )


@dataclass(frozen=True)
class ToJudge(Step):
    """The distinct negatives of each query, as a list to be judged."""

    sampled: Any

    kind: ClassVar[str] = "candidates"

    @property
    def name(self) -> str:
        return f"negatives-of-{self.sampled.name}"[:90]

    def inputs(self) -> Mapping[str, Step]:
        return {"sampled": self.sampled}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        by_query: dict[str, dict[str, None]] = {}
        for rows in blocks_of(attempt.inputs["sampled"]):
            for row in rows:
                negatives = by_query.setdefault(row["query_id"], {})
                negatives |= dict.fromkeys(negatives_in(row))
        return _write_lists({q: list(docs) for q, docs in by_query.items() if docs}, attempt)


@dataclass(frozen=True)
class Suspected(Step):
    """The negatives that the first model does not call wrong: relevant ones, and those that it had
    no answer for."""

    to_judge: Step
    first: JudgeVerdicts

    kind: ClassVar[str] = "candidates"

    @property
    def name(self) -> str:
        return f"suspected-{self.to_judge.name}"[:90]

    def inputs(self) -> Mapping[str, Step]:
        return {"to_judge": self.to_judge, "first": self.first}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        values, kept = TeacherValues(attempt.inputs["first"]), dict[str, list[str]]()
        for rows in blocks_of(attempt.inputs["to_judge"]):
            by_query = values.of_queries({row["query_id"] for row in rows})
            for row in rows:
                by_doc = by_query.get(row["query_id"], {})
                kept[row["query_id"]] = [d for d in row["doc_ids"] if by_doc.get(d, 1.0) > 0]
        return _write_lists({q: docs for q, docs in kept.items() if docs}, attempt)


@dataclass(frozen=True)
class JudgeVerdicts(LlmScores):
    """A model's answers about the lists; about empty ones none."""

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        if len(Rows(attempt.inputs["candidates"])):
            return super().run(attempt, context)
        attempt.put_table(TEACHER.empty_table(), part_name(0))
        return {"rows": 0, "documents": 0, "requests": 0}


@dataclass(frozen=True)
class Relabelled(Step):
    """The groups as the judge leaves them, and a page of verdicts beside labels."""

    sampled: Any
    first: JudgeVerdicts | None
    verdicts: JudgeVerdicts
    relabel: Literal["drop", "promote", "keep"]

    kind: ClassVar[str] = "negatives"

    @property
    def name(self) -> str:
        return f"judged-{self.sampled.name}"[:90]

    @property
    def queries(self) -> Queries:
        return self.sampled.queries  # type: ignore[no-any-return]

    @property
    def collection(self) -> Collection:
        return self.sampled.collection  # type: ignore[no-any-return]

    def spec(self) -> Mapping[str, Any]:
        return {"relabel": self.relabel}

    def inputs(self) -> Mapping[str, Step]:
        steps = {"sampled": self.sampled, "verdicts": self.verdicts}
        texts = {"queries": self.queries, "collection": self.collection}
        return {**steps, **texts, **({} if self.first is None else {"first": self.first})}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        """Write the groups and the page.

        Returns:
            Counts: of distinct negatives `asked_first`, `relevant_first` and `unanswered_first`,
            then `asked`, `relevant` and `unanswered` of the model whose word counts; documents of
            groups `negatives_dropped`, `negatives_promoted` or `negatives_kept`; `groups`, `pairs`
            and `groups_without_negatives`, which are left out.

        Raises:
            ConfigError: no group is left.
        """
        counts: Counter[str] = Counter()
        judged: dict[tuple[str, str], JudgedRow] = {}
        for number, rows in enumerate(blocks_of(attempt.inputs["sampled"])):
            judged_here = self._judged(rows, attempt.inputs)
            judged |= judged_here
            written = []
            for row in rows:
                verdicts = (judged_here[row["query_id"], doc_id] for doc_id in negatives_in(row))
                false_negatives = {verdict.doc_id for verdict in verdicts if verdict.is_relevant}
                changed = self._changed(row, false_negatives, counts)
                counts["groups_without_negatives"] += changed is None
                written += [] if changed is None else [changed]
            attempt.put_table(pa.Table.from_pylist(written, schema=NEGATIVES), part_name(number))
            counts.update(groups=len(written), pairs=sum(len(row["doc_ids"]) for row in written))
        counts.update(self._tally(judged.values()))
        if not counts["groups"]:
            raise ConfigError(
                f"judge: it leaves no group with a negative, found {dict(counts)}; set "
                "relabel=keep and look at the page, or ask another model"
            )
        models = [step.engine.label for step in (self.first, self.verdicts) if step]
        write_page(judged.values(), models, self.relabel, attempt)
        return dict(counts)

    def _judged(
        self, rows: Sequence[Mapping[str, Any]], inputs: Mapping[str, Artifact]
    ) -> dict[tuple[str, str], JudgedRow]:
        """What both models say of the negatives of some groups, by query and document."""
        query_ids = {row["query_id"] for row in rows}
        verdicts = TeacherValues(inputs["verdicts"]).of_queries(query_ids)
        first = TeacherValues(inputs["first"]).of_queries(query_ids) if self.first else {}
        judged = {}
        for row in rows:
            query_id = row["query_id"]
            for doc_id in negatives_in(row):
                cheap = first.get(query_id, {}).get(doc_id)
                asked = cheap is None or cheap > 0
                verdict = verdicts.get(query_id, {}).get(doc_id) if asked else None
                judged[query_id, doc_id] = JudgedRow(query_id, doc_id, cheap, verdict, asked)
        return judged

    def _tally(self, judged: Iterable[JudgedRow]) -> Counter[str]:
        """The answers of both models, each distinct negative once."""
        counts: Counter[str] = Counter()
        for row in judged:
            answers = {"_first": row.first} if self.first else {}
            answers |= {"": row.verdict} if row.asked else {}
            for suffix, value in answers.items():
                counts[f"asked{suffix}"] += 1
                counts[f"relevant{suffix}"] += value is not None and value > 0
                counts[f"unanswered{suffix}"] += value is None
        return counts

    def _changed(
        self, row: Mapping[str, Any], false_negatives: set[str], counts: Counter[str]
    ) -> dict[str, Any] | None:
        """The group without its false negatives, or with them as positives; None if no negative is
        left."""
        counts[f"negatives_{PAST[self.relabel]}"] += len(false_negatives)
        columns = [name for name in NEGATIVES.names if name != "query_id"]
        members = list(zip(*(row[name] for name in columns), strict=True))
        grade_at, least = columns.index("relevance"), self.queries.queries.positive_relevance
        rest = [member for member in members if member[0] not in false_negatives]
        if self.relabel == "promote":
            positives = [member for member in rest if member[grade_at] >= least]
            risen = [
                (*member[:grade_at], least, *member[grade_at + 1 :])
                for member in members
                if member[0] in false_negatives
            ]
            members = [*positives, *risen, *(m for m in rest if m not in positives)]
        elif self.relabel == "drop":
            members = rest
        if all(member[grade_at] > 0 for member in members):
            return None
        lists = zip(*members, strict=True)
        return {"query_id": row["query_id"], **dict(zip(columns, map(list, lists), strict=True))}


def blocks_of(artifact: Artifact) -> Iterator[list[dict[str, Any]]]:
    """The rows of an artifact in order, `BLOCK` at a time; one empty block where there is none."""
    rows = Rows(artifact)
    for start in range(0, max(len(rows), 1), BLOCK):
        yield rows.read(range(start, min(start + BLOCK, len(rows)))).to_pylist()


def negatives_in(row: Mapping[str, Any]) -> list[str]:
    """The documents of a group that are not relevant to any degree."""
    members = zip(row["doc_ids"], row["relevance"], strict=True)
    return [doc_id for doc_id, grade in members if grade <= 0]


def _write_lists(docs_by_query: Mapping[str, list[str]], attempt: Attempt) -> dict[str, int]:
    """Write rows of CANDIDATES in the order of the documents."""
    lists = [
        candidate_row(query_id, doc_ids, [0.0] * len(doc_ids), "negatives")
        for query_id, doc_ids in docs_by_query.items()
    ]
    for number, start in enumerate(range(0, max(len(lists), 1), BLOCK)):
        part = pa.Table.from_pylist(lists[start : start + BLOCK], schema=CANDIDATES)
        attempt.put_table(part, part_name(number))
    return {"rows": len(lists), "documents": sum(map(len, docs_by_query.values()))}
