"""Teachers that are models: a bi-encoder, alone or fused with the first stage."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from raypipe.artifacts import Step
from raypipe.inference.dense import Embeddings, VectorScores
from raypipe.inference.lists import Lists
from raypipe.inference.tokens import Tokens
from raypipe.models.backbone import Backbone
from raypipe.models.bi_encoder import BiEncoder


class BiEncoderTeacher(BiEncoder):
    """Cosine (or dot product) of query and document vectors."""

    type: Literal["bi_encoder"] = "bi_encoder"

    values: ClassVar[Literal["score", "rank"]] = "score"
    label: ClassVar[str] = "bi-encoder"
    needs_lists: ClassVar[bool] = False

    @property
    def weight_of_first_stage(self) -> float:
        return 0.0

    def scores(self, lists: Lists, precision: str) -> Step:
        """The step that scores the lists; texts are encoded once for all lists."""
        backbone = Backbone(self.backbone)
        encoder = BiEncoder(**{name: getattr(self, name) for name in BiEncoder.model_fields})
        texts = (lists.collection, lists.queries)
        docs, queries = (Embeddings(Tokens(t, backbone), encoder, precision) for t in texts)
        return VectorScores(lists, docs, queries, self.weight_of_first_stage)

    def check(self) -> None:
        """Resolve the backbone.

        Raises:
            ConfigError: it is not there.
        """
        Backbone(self.backbone).spec()


class Fusion(BiEncoderTeacher):
    """Weighted mean of z-normalised bi-encoder and first-stage scores, per query.

    On pydoc it re-ranks better than either of the two, and a teacher worse than the first stage
    teaches worse.
    """

    type: Literal["fusion"] = "fusion"  # type: ignore[assignment]
    first_stage_weight: float = Field(0.5, gt=0, lt=1)
    """Weight of the first stage; the bi-encoder has the rest."""

    label: ClassVar[str] = "bi-encoder + first stage"
    negative: ClassVar[bool] = True
    """Some values are surely below 0, so that they are no gains."""
    needs_lists: ClassVar[bool] = True  # a z-score over eight documents says little

    @property
    def weight_of_first_stage(self) -> float:
        return self.first_stage_weight
