"""The scores that a training file has beside its documents, as a teacher."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from raypipe.config import Config, ConfigError
from raypipe.datasets.own_rows import table_files
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE
from raypipe.datasets.text_match import TextMatch
from raypipe.datasets.training_reader import TrainingForm, form_of, read_groups
from raypipe.inference.lists import Lists
from raypipe.records import TEACHER
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.storage.files import file_checksum, full_paths
from raypipe.storage.parts import part_name
from raypipe.tables.text_table import TextTable
from raypipe.teachers.published.wanted import PairMeans, ValuedPairs, WantedPairs

BLOCK = 4096
"""Lines that are Python objects at a time."""


class TrainingFileScores(Config):
    """The scores of a training file: FlagEmbedding's pos_scores and neg_scores, ColBERT's n-way
    pairs, the scores of Tevatron's and sentence-transformers' lists (docs/own-data.md)."""

    type: Literal["training_file"] = "training_file"
    paths: tuple[str, ...] = Field(min_length=1)
    """One or more files, plain or .gz, or folders of parts; a document that is scored more than
    once for a query has the mean."""

    values: ClassVar[Literal["score", "rank"]] = "score"
    title: ClassVar[str] = "training file's scores"
    needs_lists: ClassVar[bool] = False

    def scores(self, lists: Lists, precision: str) -> Step:
        """The step that reads the files."""
        return TrainingFileValues(self, lists)

    def check(self) -> None:
        """The files exist and have scores.

        Raises:
            ConfigError: a file does not.
        """
        for path in self.paths:
            table_files(Path(path).expanduser(), "training file")
            self.form(path)

    def form(self, path: str) -> TrainingForm:
        """The form of a file that has scores.

        Raises:
            ConfigError: its first line has none.
        """
        form = form_of(path)
        if form is None or not form.has_scores:
            name = "lines of ids" if form is None else form.name
            raise ConfigError(
                f"teacher training_file {path}: expected scores beside the documents, found {name} "
                "without any; take another teacher, or a loss on labels"
            )
        return form


@dataclass(frozen=True)
class TrainingFileValues(Step):
    """One row per query, in the query set's order; documents without a score are left out."""

    teacher: TrainingFileScores
    lists: Lists

    kind: ClassVar[str] = "teacher"

    @property
    def name(self) -> str:
        return f"training_file-{self.lists.name}"

    def spec(self) -> Mapping[str, Any]:
        paths = (Path(path).expanduser() for path in self.teacher.paths)
        files = [file_checksum(part) for path in paths for part in table_files(path)]
        shared = {"format": "training_file", "values": "score", "files": files}
        return {**shared, "depth": self.lists.depth}

    def facts(self) -> Mapping[str, Any]:
        return {"values": "score", "paths": full_paths(self.teacher.paths)}

    def inputs(self) -> Mapping[str, Step]:
        return self.lists.named()

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        """Write the values.

        Returns:
            Counts: `lines`, `unknown_queries`, `unknown_documents`, how texts were found (see
            `TextMatch`), `values` of wanted documents, `values_not_wanted`, `values_not_finite`.
        """
        wanted = WantedPairs(attempt.inputs, self.lists.depth)
        means, counts = PairMeans(len(wanted)), Counter[str](lines=0, values=0)
        self._read(attempt.inputs, wanted, means, counts)
        if not counts["values"]:
            raise ConfigError(
                f"teacher training_file {', '.join(self.teacher.paths)}: none of its lines scores "
                f"a document that is wanted; found {dict(counts)}; name the file whose groups are "
                "trained on as groups.triples.path, or the data set that it was made for"
            )
        valued = ValuedPairs(wanted, means.values())
        for number, (_, columns) in enumerate(valued.parts()):
            attempt.put_table(pa.Table.from_arrays(columns, schema=TEACHER), part_name(number))
        return {**counts, **valued.counts(), "scores_averaged": means.averaged()}

    def _read(
        self,
        inputs: Mapping[str, Artifact],
        wanted: WantedPairs,
        means: PairMeans,
        counts: Counter[str],
    ) -> None:
        docs = TextTable(inputs["collection"].local() / DOCS_FILE)
        query_set = TextTable(inputs["queries"].local() / QUERIES_FILE)
        find_docs = TextMatch(docs, counts, "documents")
        find_queries = TextMatch(query_set, counts, "queries")
        for path in self.teacher.paths:
            lines = read_groups(path)
            while block := list(islice(lines, BLOCK)):
                scored = [group for group in block if group.scores is not None]
                counts.update(lines=len(block), lines_without_scores=len(block) - len(scored))
                sizes = [len(group.docs) for group in scored]
                queries = find_queries.rows_of([group.query for group in scored])
                counts["unknown_queries"] += int((queries < 0).sum())
                rows = find_docs.rows_of([entry for group in scored for entry in group.docs])
                of_doc = np.repeat(queries, sizes)
                counts["unknown_documents"] += int(((rows < 0) & (of_doc >= 0)).sum())
                known = (rows >= 0) & (of_doc >= 0)
                values = np.array([s for group in scored for s in group.scores or ()])[known]
                numbers = wanted.numbers(of_doc[known], docs.ids_at(rows[known]))
                finite = np.isfinite(values)
                counts["values_not_finite"] += int((~finite & (numbers >= 0)).sum())
                counts["values_not_wanted"] += int((numbers < 0).sum())
                counts["values"] += int((finite & (numbers >= 0)).sum())
                kept = finite & (numbers >= 0)
                means.add(numbers[kept], values[kept])
