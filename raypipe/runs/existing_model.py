"""Models that exist, such as last month's best: rows that re-rank the test candidates of today."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from raypipe.config import Config, ConfigError
from raypipe.datasets.steps import Collection, Listed, Queries
from raypipe.inference.lists import Lists
from raypipe.models.backbone import Backbone
from raypipe.runs.baselines import TeacherRun
from raypipe.storage.address import Address
from raypipe.storage.artifacts import Step
from raypipe.teachers.bi_encoder import BiEncoderTeacher
from raypipe.teachers.cross_encoder import CrossEncoderTeacher
from raypipe.teachers.ready_model import read_as_trained, scorer_of, template_of

REGISTERED = "models:/"


class ModelRow(Config):
    """A model that exists, as a row: it re-ranks the candidates of every test set, as
    `raypipe rerank` does.

    It reads texts and cuts pairs as its own files say; a bi-encoder compares vectors."""

    type: Literal["model"]
    uri: str
    """`models:/NAME@best` or `models:/NAME/3` of MLflow, a hub name, a folder, or
    `package:NAME/FOLDER`. The weights' content decides the row."""
    max_length: int | None = Field(None, ge=1)
    """Tokens per pair, or per text of a bi-encoder; null is what a checkpoint of raypipe's was
    trained with, or what the model reads, at most 512."""
    label: int | None = Field(None, ge=0)
    """Of a head with several labels, the number of the one that means relevant."""

    @field_validator("uri")
    @classmethod
    def _named(cls, uri: str) -> str:
        if not uri.strip():
            raise ValueError("expected a model, found nothing; name one")
        return str(uri)

    def model(self, tracking: Address | None) -> str:
        """The model as a backbone is named: a registered one is copied to this machine first.

        Args:
            tracking: MLflow's address; None is the default.

        Raises:
            ConfigError: there is no such registered model.
        """
        return _fetched(self.uri, tracking) if self.uri.startswith(REGISTERED) else self.uri

    def scorer(self, tracking: Address | None) -> CrossEncoderTeacher | BiEncoderTeacher:
        """What scores pairs with the model.

        Raises:
            ConfigError: the model is not there, or can rank nothing.
        """
        return scorer_of(self.model(tracking), self.max_length, self.label)

    def check(self, tracking: Address | None) -> None:
        """The model is there and can rank.

        Raises:
            ConfigError: it is not.
        """
        try:
            self.scorer(tracking).check()
        except ConfigError as error:
            raise ConfigError(self._own_words(str(error), tracking)) from None

    def _own_words(self, text: str, tracking: Address | None) -> str:
        """Words on the copy of a registered model, as on the model that was named."""
        if not self.uri.startswith(REGISTERED) or text.startswith(self.uri):
            return text
        return text.replace(self.model(tracking), self.uri)

    def run_of(
        self, first: Step, queries: Queries, depth: int, precision: str, tracking: Address | None
    ) -> TeacherRun:
        """The first `depth` candidates re-ranked by the model, the rest behind them.

        Args:
            first: the candidate lists.
        """
        scorer = self.scorer(tracking)
        data = read_as_trained(queries.queries, template_of(scorer.backbone))
        collection = Listed(Collection(data), first, depth)  # no other document is tokenised
        scores = scorer.scores(Lists(first, None, collection, queries, depth), precision)
        return TeacherRun(scores, scorer.values, first, queries, depth)

    def line(self, tracking: Address | None) -> str:
        """What the row shows, in a sentence."""
        scorer = self.scorer(tracking)
        kind, read = "a bi-encoder", f"texts of at most {self.max_length} tokens"
        if isinstance(scorer, CrossEncoderTeacher):
            kind, read = "a cross-encoder", f"pairs cut by {scorer.truncation.reads}"
        elif self.max_length is None:
            read = "texts as long as it was trained on"
        template = template_of(scorer.backbone)
        parts = [f"{kind}, {read}", *([] if template is None else [f"texts made of {template}"])]
        if mixed := _said(scorer.backbone).get("interpolation"):
            parts.append(
                f"alone, though it was registered mixed with its first stage (weight "
                f"{mixed['weight']:g})"
            )
        named = self.uri
        if self.uri.startswith(REGISTERED):
            from raypipe.tracking.registered import version_of

            named = f"{self.uri} (version {version_of(self.uri, tracking)})"
        return f"{named} re-ranks as {'; '.join(parts)}"


def _said(model: str) -> Mapping[str, Any]:
    """What raypipe wrote into the model's config.json."""
    said: Mapping[str, Any] = Backbone(model).published_config().get("raypipe") or {}
    return said


@functools.lru_cache(maxsize=32)
def _fetched(uri: str, tracking: Address | None) -> str:
    """The folder of a registered model. An alias is followed once in a process: what a job judges
    is the model that it found when it began."""
    from raypipe.tracking.registered import local_checkpoint

    return str(local_checkpoint(uri, tracking))
