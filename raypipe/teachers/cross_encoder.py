"""Teachers that read query and document together: any sequence classifier with one output."""

from __future__ import annotations

from typing import ClassVar, Literal

from raypipe.artifacts import Step
from raypipe.config import Config
from raypipe.data.truncation import LongestFirst, Truncation
from raypipe.inference.cross_scores import CrossEncoderScores
from raypipe.inference.lists import Lists
from raypipe.models.backbone import Backbone
from raypipe.models.checks import require_scorer


class CrossEncoderTeacher(Config):
    """Logits of a trained cross-encoder (Hofstaetter et al. 2020), one forward per document."""

    type: Literal["cross_encoder"] = "cross_encoder"
    backbone: str
    """Hub name, directory or package of a sequence classifier with one label, such as
    cross-encoder/ms-marco-MiniLM-L6-v2 or a checkpoint that raypipe trained."""
    truncation: Truncation = LongestFirst(max_length=512)
    """What it reads of a pair; it need not be what the student reads."""

    values: ClassVar[Literal["score", "rank"]] = "score"
    label: ClassVar[str] = "cross-encoder"
    needs_lists: ClassVar[bool] = False

    def scores(self, lists: Lists, precision: str) -> Step:
        """The step that scores the lists."""
        return CrossEncoderScores(lists, Backbone(self.backbone), self.truncation, precision)

    def check(self) -> None:
        """Resolve the model and read its config.json, also from the hub.

        Raises:
            ConfigError: it is not there, or has no trained head with one output.
        """
        backbone = Backbone(self.backbone)
        backbone.check()
        require_scorer(backbone.published_config(), f"teacher.backbone {self.backbone}")
