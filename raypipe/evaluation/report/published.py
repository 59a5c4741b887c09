"""Values that a paper printed, to stand beside one's own on the same data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field, field_validator

from raypipe.config import Config


class Published(Config):
    """One table of a paper: one data set over one first stage."""

    dataset: str
    """The id as in `queries.dataset`; the values stand beside this data set only."""
    split: str | None = None
    """As in `queries.split`."""
    first_stage: str
    """The label of the candidates that were re-ranked."""
    source: str = Field(min_length=1)
    """Paper and table."""
    values: dict[str, dict[str, float]] = Field(min_length=1)
    """measure -> row name -> value in [0, 1]."""

    @field_validator("values")
    @classmethod
    def _in_range(cls, values: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for measure, rows in values.items():
            for row, value in rows.items():
                if not 0 <= value <= 1:
                    raise ValueError(
                        f"{measure} of {row!r}: expected a value in [0, 1], found {value}; "
                        "divide percentages by 100"
                    )
        return values


def published_for(
    tables: Sequence[Published], dataset: str, split: str | None, first_stage: str
) -> tuple[Mapping[str, Mapping[str, float]], tuple[str, ...]]:
    """Join the tables of one data set and first stage: (measure -> row -> value, sources)."""
    values: dict[str, dict[str, float]] = {}
    sources = []
    for table in tables:
        if (table.dataset, table.split, table.first_stage) == (dataset, split, first_stage):
            sources.append(table.source)
            for measure, rows in table.values.items():
                values.setdefault(measure, {}).update(rows)
    return values, tuple(dict.fromkeys(sources))
