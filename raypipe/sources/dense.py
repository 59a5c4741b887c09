"""A bi-encoder as a candidate source."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from raypipe.artifacts import Step
from raypipe.data.sets import Collection, Queries
from raypipe.inference.dense import DenseCandidates, Embeddings, ExactIndex, Index
from raypipe.inference.tokens import Tokens
from raypipe.inference.without_self import WithoutSelf
from raypipe.models.backbone import Backbone
from raypipe.models.bi_encoder import BiEncoder


class Dense(BiEncoder):
    """The documents whose vectors have the highest dot product with the query's."""

    type: Literal["dense"] = "dense"
    depth: int = Field(100, ge=1)
    """Candidates per query."""
    exclude_query_id: bool = False
    """Leave out the document that has the query's id, as BEIR does: for collections such as ArguAna
    whose queries are documents."""
    index: Index = ExactIndex()
    """exact compares everything; ivf and hnsw are approximate and need FAISS."""
    name: str = Field("dense", min_length=1)
    """What the source is called in tables."""

    @property
    def label(self) -> str:
        return self.name

    def candidates(self, collection: Collection, queries: Queries, precision: str) -> Step:
        """The step that retrieves; every text is encoded once, for teachers of this model too."""
        backbone = Backbone(self.backbone)
        encoder = BiEncoder(**{name: getattr(self, name) for name in BiEncoder.model_fields})
        docs = Embeddings(Tokens(collection, backbone), encoder, precision)
        asked = Embeddings(Tokens(queries, backbone), encoder, precision)
        depth = self.depth + self.exclude_query_id
        found = DenseCandidates(docs, asked, self.index, depth, self.name)
        return WithoutSelf(found, self.depth) if self.exclude_query_id else found

    def check(self) -> None:
        """The backbone is there, and FAISS if the index needs it.

        Raises:
            ConfigError: it is not.
        """
        Backbone(self.backbone).spec()
        self.index.check()
