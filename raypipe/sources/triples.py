"""Ready-made training triples in the place of sampled negatives."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from raypipe.artifacts import Step
from raypipe.config import Config
from raypipe.data.sets import Collection, Queries
from raypipe.inference.files import TripleGroups, check_files, open_docpairs


class Triples(Config):
    """(query, positive, negative) ids as published, in their order: MS MARCO's training triples."""

    type: Literal["triples"] = "triples"
    dataset: str | None = None
    """An ir_datasets id with docpairs, such as msmarco-passage/train/triples-small."""
    path: str | None = None
    """Or a file, plain or .gz, of `query_id pos_id neg_id` lines, parted by tabs or spaces; also
    with two scores before the ids, as the `ensemble_scores` teacher reads it."""
    per_group: int = Field(1, ge=1)
    """Negatives per group: consecutive triples of one query and positive fill a group. With 1 every
    triple is a group; with more, a negative that its positive has already had is left out."""
    limit: int | None = Field(None, ge=1)
    """The first n groups in the file's order; null takes all."""
    name: str = "triples"
    """What the source is called in paths."""

    @model_validator(mode="after")
    def _one_source(self) -> Triples:
        if (self.dataset is None) == (self.path is None):
            found = "neither" if self.path is None else "both"
            raise ValueError(f"expected either `dataset` or `path`, found {found}")
        return self

    @property
    def label(self) -> str:
        return self.name

    def negatives(self, collection: Collection, queries: Queries) -> Step:
        """The step that forms the groups."""
        return TripleGroups(
            self.dataset,
            self.path,
            self.per_group,
            self.limit,
            self.name,
            collection,
            queries,
        )

    def check(self) -> None:
        """The file exists, or the data set has docpairs.

        Raises:
            ConfigError: it does not.
        """
        if self.path is not None:
            check_files([self.path], "triples file")
        elif self.dataset is not None:
            open_docpairs(self.dataset)
