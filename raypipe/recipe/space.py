"""What varies between the trials of a sweep, and how it is searched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from raypipe.config import Config, nearest
from raypipe.names import checked_name, shown_by_all
from raypipe.storage.address import shown_value, typed_addresses

SEED = "seed"
"""The key whose values are repetitions of one row, not rows."""

WHOLE = "recipe"
"""The key whose values are mappings from dotted keys: fields that change together."""


class _Bounds(Config):
    """Base of ranges, which only a search can draw from."""

    low: float
    high: float
    log: bool = False
    """As likely in every decade."""

    @model_validator(mode="after")
    def _ordered(self) -> _Bounds:
        if not self.low < self.high:
            raise ValueError(f"expected low < high, found {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low: expected more than 0 with log, found {self.low:g}")
        return self


class UniformRange(_Bounds):
    """A real number between two bounds."""

    type: Literal["uniform"] = "uniform"

    def semantic(self) -> dict[str, Any]:
        """Under the name that journals of earlier searches may hold."""
        return {**super().semantic(), "class": "Uniform"}


class Integer(_Bounds):
    """A whole number between two bounds, both included."""

    type: Literal["integer"] = "integer"
    low: int
    high: int


Range = Annotated[UniformRange | Integer, Field(discriminator="type")]
_RANGE: TypeAdapter[UniformRange | Integer] = TypeAdapter(Range)


@dataclass(frozen=True)
class Axis:
    """One key of the space."""

    key: str
    """Dotted, as on the command line."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Label in tables to value; empty for a range."""
    range: UniformRange | Integer | None = None
    """Where a search draws from; None where the key has values."""
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Labels of earlier keys under which this key applies; empty: always."""

    def applies(self, labels: Mapping[str, str]) -> bool:
        """Whether this key varies where earlier keys have these labels."""
        return all(labels.get(key) in allowed for key, allowed in self.when.items())


class Asha(Config):
    """Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934) on validation values."""

    grace: int = Field(1, ge=1)
    """Validations of its last stage that a trial has before it can be stopped."""
    reduction: float = Field(3.0, gt=1)
    """One in so many of the trials that reach a rung goes on."""


class Search(Config):
    """How `mode: search` looks for good trials. It makes no claim of significance."""

    algorithm: Literal["tpe", "random"] = "tpe"
    """tpe: Optuna's tree-structured Parzen estimator, which learns from finished trials."""
    trials: int = Field(16, ge=1)
    """Draws from the space, those of interrupted runs of the same search among them."""
    startup: int = Field(6, ge=1)
    """Random trials before tpe draws its first conclusion."""
    seed: int = Field(1, ge=0)
    """Of the sampler, not of training."""
    pruning: Asha | None = Asha()
    """Stops trials early, within their last stage and only where no other trial shares it."""


class Sweep(Config):
    """What varies between trials."""

    mode: Literal["compare", "search"] = "compare"
    """compare: every combination, nothing stopped early, significance tests. search: a number of
    draws from the space, hopeless ones stopped early; the best on validation is tested."""
    space: dict[str, list[Any] | dict[str, Any]] = Field(default_factory=dict)
    """Dotted key to its values: a list; a mapping from names in tables to values; `{values: ...,
    when: {other.key: LABEL}}` around either for fields that only some choices have; or, in a
    search, a range `{type: uniform | integer, low: a, high: b, log: true}`. `seed` repeats rows;
    under `recipe` a value is a mapping of dotted keys that change together."""
    select: dict[str, list[Any]] = Field(default_factory=dict)
    """Keys `stages.NAME.FIELD` whose value is chosen on validation queries before the comparison:
    for every stage and whatever else varies, with the first seed, the stage trained alone."""
    retries: int = Field(1, ge=0)
    """How often a failed trial is run again before it is reported as failed."""
    search: Search = Search()
    """Draws trials from the space instead of running all of it."""

    @field_validator("space")
    @classmethod
    def _masked(cls, space: dict[str, Any]) -> Any:
        return typed_addresses(space)

    @model_validator(mode="after")
    def _readable(self) -> Sweep:
        known: dict[str, Axis] = {}
        for key, entry in self.space.items():
            try:
                axis = parse_axis(key, entry)
                _check_when(axis, known)
            except ValueError as error:
                raise ValueError(f"space.{key}: {error}") from None
            if axis.range is not None and self.mode == "compare":
                raise ValueError(
                    f"space.{key}: a range has no list of values to compare; give a list, or set "
                    "sweep.mode=search"
                )
            known[key] = axis
        for key, values in self.select.items():
            if len(key.split(".")) < 3 or not key.startswith("stages.") or not values:
                raise ValueError(
                    f"select.{key}: expected a key stages.NAME.FIELD with a list of values"
                )
            if key in self.space:
                raise ValueError(f"select.{key}: this key is in sweep.space too; keep one of them")
        if self.select and self.mode == "search":
            raise ValueError("select: a search chooses by itself; put the key into sweep.space")
        return self

    def axes(self) -> list[Axis]:
        """The keys of the space, in order."""
        return [parse_axis(key, entry) for key, entry in self.space.items()]


def parse_axis(key: str, entry: Any) -> Axis:
    """An entry of `sweep.space`.

    Raises:
        ValueError: the entry is neither a list, a mapping of labels, nor a range.
    """
    when: dict[str, tuple[str, ...]] = {}
    if isinstance(entry, Mapping) and "when" in entry and entry.keys() <= {"when", "values"}:
        when = {earlier: _labels(labels) for earlier, labels in dict(entry["when"]).items()}
        entry = entry.get("values")
    if isinstance(entry, Mapping) and {"type", "low", "high"} <= entry.keys():
        when |= {earlier: _labels(labels) for earlier, labels in entry.get("when", {}).items()}
        bounds = {name: value for name, value in entry.items() if name != "when"}
        try:
            return Axis(key, {}, _RANGE.validate_python(bounds), when)
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
    if isinstance(entry, Mapping):
        values = {checked_name(str(label)): value for label, value in entry.items()}
    elif isinstance(entry, list):
        values = {_label(value): value for value in entry}
    else:
        values, entry = {}, shown_value(entry)
    if not values:
        raise ValueError(f"expected a list, or a mapping from names to values, found {entry}")
    if len(values) < len(entry):  # 1 and "1" are keys of one mapping
        raise ValueError(f"expected values with different names, found {shown_value(entry)}")
    return Axis(key, values, None, when)


def _label(value: Any) -> str:
    """A value as tables show it where the recipe gives it no name.

    Raises:
        ValueError: no table can show it.
    """
    if not isinstance(value, str):
        return json.dumps(value)
    try:
        return shown_by_all(str(value))  # an address: its mask
    except ValueError as error:
        raise ValueError(f"{error}, or name the values in a mapping") from None


def _labels(values: Any) -> tuple[str, ...]:
    return tuple(map(_label, values if isinstance(values, list) else [values]))


def _check_when(axis: Axis, known: Mapping[str, Axis]) -> None:
    """Refuse a condition on a key or a label that no earlier axis has."""
    for key, labels in axis.when.items():
        if key not in known:
            raise ValueError(f"when.{key}: no earlier key of the space{nearest(key, known)}")
        for label in labels:
            if label not in known[key].values:
                near = nearest(label, known[key].values)
                raise ValueError(f"when.{key}: there is no {label!r} there{near}")
