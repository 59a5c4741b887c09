"""Mined groups as training files of other libraries: one JSON line per group."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypipe.config import ConfigError
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE
from raypipe.groups.training_set import TrainingData
from raypipe.names import path_part
from raypipe.progress import Say
from raypipe.recipe.experiment import Experiment
from raypipe.storage.builder import Builder
from raypipe.tables.text_table import TextTable
from raypipe.train.group_reader import GroupReader


@dataclass(frozen=True)
class TextGroup:
    """One group as text, positives first."""

    query_id: str
    query: str
    doc_ids: Sequence[str]
    docs: Sequence[str]
    positives: int
    scores: Sequence[float] | None
    """The teacher's values, higher is better; None where it lacks one."""


def flag_embedding(group: TextGroup) -> dict[str, Any]:
    """FlagEmbedding's lines, which its re-rankers are fine-tuned on too."""
    cut, scores = group.positives, group.scores
    line = {"query": group.query, "pos": group.docs[:cut], "neg": group.docs[cut:]}
    if scores is None:
        return line
    return {**line, "pos_scores": scores[:cut], "neg_scores": scores[cut:]}


def tevatron(group: TextGroup) -> dict[str, Any]:
    """Tevatron's lines; ids are those of the data set, scores have no place there."""
    passages = [
        {"docid": doc_id, "title": "", "text": text}
        for doc_id, text in zip(group.doc_ids, group.docs, strict=True)
    ]
    cut = group.positives
    named = {"query_id": group.query_id, "query": group.query}
    return {**named, "positive_passages": passages[:cut], "negative_passages": passages[cut:]}


def sentence_transformers(group: TextGroup) -> dict[str, Any]:
    """The columns query, docs and labels, and scores beside them, of list-wise losses."""
    rest = len(group.docs) - group.positives
    line = {"query": group.query, "docs": group.docs, "labels": [1] * group.positives + [0] * rest}
    return line if group.scores is None else {**line, "scores": group.scores}


GROUP_FORMS: Mapping[str, Callable[[TextGroup], dict[str, Any]]] = {
    "flagembedding": flag_embedding,
    "tevatron": tevatron,
    "sentence-transformers": sentence_transformers,
}


def export_groups(experiment: Experiment, folder: Path, form: str, say: Say = print) -> None:
    """Write every training set of the recipe to `FOLDER/STAGES.jsonl`, further sets on their own.

    Args:
        form: a name of `GROUP_FORMS`.

    Raises:
        ConfigError: the groups are not mined yet; nothing is written then.
    """
    builder = Builder(experiment.store())
    sets = experiment.mined_sets()
    for stages, data in sets.items():
        if builder.find(data.groups()) is None:
            raise ConfigError(
                f"groups of {', '.join(stages)} are not in {experiment.store().shown_path('')} "
                "yet; mine them first: raypipe mine, with the same words"
            )
    folder.mkdir(parents=True, exist_ok=True)
    for stages, data in sets.items():
        path = folder / f"{path_part('-'.join(stages), '.jsonl')}"
        written = without = 0
        with path.open("w", encoding="utf-8") as file:
            for group in text_groups(data, builder):
                if not group.positives:
                    without += 1
                    continue
                file.write(json.dumps(GROUP_FORMS[form](group), ensure_ascii=False) + "\n")
                written += 1
        lost = f"; {without:,} without a positive have no place there" if without else ""
        say(f"{path}: {written:,} groups as {form} reads them{lost}")


def text_groups(data: TrainingData, builder: Builder) -> Iterator[TextGroup]:
    """The groups of a training set that stands, in order."""
    groups = GroupReader(builder.get(data.groups()).local()).table
    query_set = TextTable(builder.get(data.queries()).local() / QUERIES_FILE)
    docs = TextTable(builder.get(data.collection()).local() / DOCS_FILE)
    least = data.query_set.positive_relevance
    sign = -1.0 if data.teacher is not None and data.teacher.values == "rank" else 1.0
    query_ids, doc_ids = query_set.ids(), docs.ids()
    for batch in groups.to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            order = sorted(
                range(len(row["doc_indices"])), key=lambda at, row=row: row["relevance"][at] < least
            )
            rows = [row["doc_indices"][at] for at in order]
            values = row["teacher_values"]
            scores = None if values is None else [sign * values[at] for at in order]
            if scores is not None and not all(map(math.isfinite, scores)):
                scores = None
            yield TextGroup(
                query_ids[row["query_index"]].as_py(),
                query_set.text(row["query_index"]),
                [doc_ids[at].as_py() for at in rows],
                docs.texts(rows),
                sum(value >= least for value in row["relevance"]),
                scores,
            )
