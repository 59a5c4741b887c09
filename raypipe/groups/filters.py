"""False-negative filters: documents that are too likely relevant to train against.

Positive-aware mining (NV-Retriever, Moreira et al. 2024, 2407.15831) compares a teacher's score of
the negative with its score of the positive. Of several positives in a group the lowest-scoring one
decides, which removes the most negatives. In a group without a positive all of the query's count.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from raypipe.config import Config
from raypipe.groups.pool import CORPUS, Chosen
from raypipe.plugins.choice import OrPlugIn
from raypipe.tables.plain_text import normalised, words

Keeps = Callable[[str], bool]
"""Whether a document, by id, may be a negative."""


@dataclass(frozen=True)
class Evidence:
    """What filters know about one group."""

    positives: Sequence[str]
    """Positives of the group, or all of the query's where the group has none."""
    relevant: Sequence[str]
    """All positives of the query."""
    score: Callable[[str], float]
    """The teacher's score of a document, higher is better; NaN where there is none."""
    text: Callable[[str], str]

    @property
    def reference(self) -> float:
        """The lowest teacher score among the positives; NaN if no positive has a score."""
        scores = np.array([self.score(doc_id) for doc_id in self.positives])
        known = scores[np.isfinite(scores)]
        return float(known.min()) if len(known) else float("nan")


class FilterBase(Config):
    """The contract: `build` makes the function that decides about one group's documents."""

    type: str = ""
    """Declared here, so that recipes are printed with `type` first."""

    needs_scores: ClassVar[bool] = False
    """Whether the filter reads teacher scores of documents: the teacher's kind must be `score`."""
    needs_reference: ClassVar[bool] = False
    """Whether the filter compares with a positive's score, without which there is no group."""

    @abstractmethod
    def build(self, evidence: Evidence) -> Keeps:
        """The function that decides about one group's documents."""


class AbsoluteMargin(FilterBase):
    """Keeps what the teacher scores at least `margin` below the positive (TopK-MarginPos)."""

    type: Literal["absolute_margin"] = "absolute_margin"
    margin: float = Field(ge=0)
    """In units of the teacher's scores."""

    needs_scores: ClassVar[bool] = True
    needs_reference: ClassVar[bool] = True

    def build(self, evidence: Evidence) -> Keeps:
        most = evidence.reference - self.margin
        return lambda doc_id: evidence.score(doc_id) <= most


class RelativeMargin(FilterBase):
    """Keeps what the teacher scores at most `share` of the positive's score (TopK-PercPos).

    For scores whose zero means something, such as cosines. Beside a positive of score 0 or less,
    of which no share is useful, a negative is kept if it scores below the positive.
    """

    type: Literal["relative_margin"] = "relative_margin"
    share: float = Field(0.95, gt=0, le=1)
    """Of the positive's score, the most that a negative may have."""

    needs_scores: ClassVar[bool] = True
    needs_reference: ClassVar[bool] = True

    def build(self, evidence: Evidence) -> Keeps:
        reference = evidence.reference
        if reference <= 0:
            return lambda doc_id: evidence.score(doc_id) < reference
        return lambda doc_id: evidence.score(doc_id) <= self.share * reference


class MaxScore(FilterBase):
    """Keeps what the teacher scores at most `score` (TopK-Abs)."""

    type: Literal["max_score"] = "max_score"
    score: float
    """In units of the teacher's scores."""

    needs_scores: ClassVar[bool] = True

    def build(self, evidence: Evidence) -> Keeps:
        return lambda doc_id: evidence.score(doc_id) <= self.score


class NearDuplicate(FilterBase):
    """Keeps what is no near-copy of any positive of the query, in the group or not.

    Copies share `similarity` of their word shingles (Jaccard; Broder 1997), or are equal up to case
    and white space. A text shorter than a shingle is one shingle. Where a script has no spaces
    (Chinese, Japanese, Thai, ...) every character is a word.
    """

    version: ClassVar[int] = 2  # characters that nobody sees are no letters

    type: Literal["near_duplicate"] = "near_duplicate"
    similarity: float = Field(0.8, gt=0, le=1)
    """Jaccard similarity from which a document counts as a copy."""
    shingle: int = Field(5, ge=1)
    """Words per shingle."""

    def build(self, evidence: Evidence) -> Keeps:
        texts = [evidence.text(doc_id) for doc_id in evidence.relevant]
        positive_texts = {normalised(text) for text in texts}
        positive_shingles = [shingles(text, self.shingle) for text in texts]

        def keeps(doc_id: str) -> bool:
            text = evidence.text(doc_id)
            if normalised(text) in positive_texts:
                return False
            runs = shingles(text, self.shingle)
            return all(jaccard(runs, others) < self.similarity for others in positive_shingles)

        return keeps


Filter = Annotated[
    AbsoluteMargin | RelativeMargin | MaxScore | NearDuplicate,
    Field(discriminator="type"),
    OrPlugIn("filter", FilterBase),
]
"""To add a filter: write one class with `build` and its `needs_`, and name it here."""


class Screen:
    """Asks the filters about every document that is drawn for one group, and counts removals.

    Where a filter reads scores, a retrieved document without a score is removed. A random document
    of the collection, which no teacher has seen, passes such filters: it is hardly ever relevant.
    """

    def __init__(
        self,
        filters: Sequence[FilterBase],
        evidence: Evidence,
        copies: Callable[[str], str | None] = lambda doc_id: None,
    ) -> None:
        """
        Args:
            copies: the counter of a document that is no negative because of its text or its id;
                None for the others.
        """
        self.removed: Counter[str] = Counter()
        """By the name of a counter, the documents removed for that reason, each counted once."""
        self._copies = copies
        self._keepers = [(rule, rule.build(evidence)) for rule in filters]
        self._scored = any(rule.needs_scores for rule in filters)
        self._score = evidence.score
        self._out: set[str] = set()

    def __call__(self, document: Chosen) -> bool:
        if document.doc_id in self._out:
            return False
        if (reason := self._reason(document)) is None:
            return True
        self._out.add(document.doc_id)
        self.removed[reason] += 1
        return False

    def _reason(self, document: Chosen) -> str | None:
        if (reason := self._copies(document.doc_id)) is not None:
            return reason
        unknown = self._scored and not np.isfinite(self._score(document.doc_id))
        if unknown and document.source != CORPUS:
            return "candidates_without_teacher_score"
        for rule, keeps in self._keepers:
            if not (rule.needs_scores and unknown) and not keeps(document.doc_id):
                return f"removed_by_{rule.type}"
        return None


def shingles(text: str, size: int) -> set[tuple[str, ...]]:
    """Runs of `size` words of a text, as `plain_text.words` parts it."""
    parts = words(text)
    if not parts:
        return set()
    return {tuple(parts[i : i + size]) for i in range(max(len(parts) - size, 0) + 1)}


def jaccard(first: set[tuple[str, ...]], second: set[tuple[str, ...]]) -> float:
    """The sets' intersection by their union, in sizes; 0 if a set is empty."""
    if not first or not second:
        return 0.0
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared)
