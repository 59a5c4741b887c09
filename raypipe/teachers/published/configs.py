"""Teachers that are files: published re-rankings, language models' orders, ranker scores."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from raypipe.config import Config
from raypipe.inference.lists import Lists
from raypipe.storage.artifacts import Step
from raypipe.storage.files import check_files
from raypipe.teachers.published.pair_scores import PairScores
from raypipe.teachers.published.rankgpt import RankGptOrders
from raypipe.teachers.published.run_file import RunFileValues
from raypipe.teachers.published.scores import ScoreFile


class RunFile(Config):
    """A TREC run, such as an LLM's re-ranking: the order of its rank column, or its scores."""

    type: Literal["run_file"] = "run_file"
    paths: tuple[str, ...] = Field(min_length=1)
    """One or more run files, plain or .gz."""
    column: Literal["rank", "score"] = "rank"
    """Which column counts; a re-ranking often keeps the scores of the list it re-ranked."""

    label: ClassVar[str] = "run file"
    needs_lists: ClassVar[bool] = False

    @property
    def values(self) -> Literal["score", "rank"]:
        return self.column

    def scores(self, lists: Lists, precision: str) -> Step:
        """The step that reads the files."""
        return RunFileValues(self.paths, self.column, lists)

    def check(self) -> None:
        """The files exist."""
        check_files(self.paths)


class RankGptFile(Config):
    """Lists and a language model's answers about them, as RankGPT published them."""

    type: Literal["rankgpt"] = "rankgpt"
    lists: str
    """JSON lines: query_id, and retrieved_passages with docid and rank."""
    permutations: str
    """A JSON list of strings such as "[5] > [18] > [2]", or one JSON string per line."""
    unparsable: Literal["drop", "keep"] = "drop"
    """An answer without any order: no values for the query, or the list as the model saw it."""

    values: ClassVar[Literal["score", "rank"]] = "rank"
    label: ClassVar[str] = "RankGPT"
    needs_lists: ClassVar[bool] = False

    def scores(self, lists: Lists, precision: str) -> Step:
        """The step that reads the files."""
        return RankGptOrders(self.lists, self.permutations, self.unparsable, lists)

    def check(self) -> None:
        """The files exist."""
        check_files((self.lists, self.permutations), "rankgpt file")


class MonoScores(Config):
    """A pointwise ranker's scores (monoT5): `query_id doc_id score_true score_false`, tabs.

    The value is log softmax of true. Three columns are `query_id doc_id score`, taken as it is.
    """

    type: Literal["mono_scores"] = "mono_scores"
    paths: tuple[str, ...] = Field(min_length=1)
    """One or more files, plain or .gz."""

    values: ClassVar[Literal["score", "rank"]] = "score"
    label: ClassVar[str] = "pointwise scores"
    needs_lists: ClassVar[bool] = False

    def scores(self, lists: Lists, precision: str) -> Step:
        """The step that reads the files."""
        return ScoreFile(self.type, self.paths, lists)

    def check(self) -> None:
        """The files exist."""
        check_files(self.paths, "mono_scores file")


class DuoScores(Config):
    """A pairwise ranker's probabilities (duoT5): `query_id doc1 doc2 log_p`, parted by tabs.

    log_p is log P(doc1 is more relevant than doc2). A document's value is its probability to win,
    over all its comparisons (Pradeep et al. 2021, Sym-Sum); the pairs are kept beside it.
    """

    type: Literal["duo_scores"] = "duo_scores"
    paths: tuple[str, ...] = Field(min_length=1)
    """One or more files, plain or .gz."""
    aggregation: Literal["mean", "sum"] = "mean"
    """The mean stays comparable where documents have unequal numbers of comparisons."""

    values: ClassVar[Literal["score", "rank"]] = "score"
    label: ClassVar[str] = "pairwise scores"
    needs_lists: ClassVar[bool] = True

    def scores(self, lists: Lists, precision: str) -> Step:
        """The step that reads the files; its table has the pairs too."""
        return PairScores(self.paths, self.aggregation, lists)

    def check(self) -> None:
        """The files exist."""
        check_files(self.paths, "duo_scores file")


class EnsembleScores(Config):
    """Scored triples (Hofstaetter et al. 2020): `pos_score neg_score query_id pos_doc_id
    neg_doc_id`, parted by tabs.

    Both scores of a row count; a document scored more than once has the mean.
    """

    type: Literal["ensemble_scores"] = "ensemble_scores"
    paths: tuple[str, ...] = Field(min_length=1)
    """One or more files, plain or .gz."""

    values: ClassVar[Literal["score", "rank"]] = "score"
    label: ClassVar[str] = "ensemble scores"
    needs_lists: ClassVar[bool] = False

    def scores(self, lists: Lists, precision: str) -> Step:
        """The step that reads the files."""
        return ScoreFile(self.type, self.paths, lists)

    def check(self) -> None:
        """The files exist."""
        check_files(self.paths, "ensemble_scores file")
