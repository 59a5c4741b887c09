"""Measures of the user's own: `my_package.module:Class@10`, computed per query from a list."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml
from pydantic import Field, ValidationError

from raypipe.config import Config
from raypipe.names import quoted
from raypipe.plugins.loading import Origin, PlugIn, is_plugin_name, plugin_class, revived

_FORM = re.compile(r"(?P<cls>[^()@]+)(\((?P<fields>[^()]*)\))?(@(?P<cutoff>\d+))?")


class OwnMeasure(Config):
    """Base of a measure of one's own: a value per query, higher is better, 0 without results."""

    type: str = ""
    """Declared here, so that it stands first."""
    cutoff: int | None = Field(None, ge=1)
    """The k of `@k`: only the first k documents count."""

    @abstractmethod
    def per_query(
        self, ranked: Sequence[str], relevance: Mapping[str, int], positive_relevance: int
    ) -> float:
        """The value of one list.

        Args:
            ranked: document ids, best first, not more than `cutoff`; at least one.
            relevance: the query's judgements by document id.
            positive_relevance: the lowest relevance that counts as relevant.
        """


def own_measure(name: str) -> OwnMeasure:
    """The measure of `my_package.module:Class`, perhaps with fields and a cutoff, as in
    `my_package.module:Class(p=0.8)@10`.

    Raises:
        ValueError: the class cannot be had, or its fields are others.
    """
    parts = _FORM.fullmatch(name.strip())
    if parts is None:
        raise ValueError(
            f"measure {name!r}: expected a form such as my_package.module:Class(p=0.8)@10"
        )
    try:
        cls = plugin_class(parts["cls"].strip(), OwnMeasure, "measure")
        fields: dict[str, Any] = {}
        for setting in filter(None, (parts["fields"] or "").split(",")):
            key, equals, value = setting.partition("=")
            if not equals:
                raise ValueError(f"expected fields such as p=0.8, found {quoted(setting)}")
            fields[key.strip()] = yaml.safe_load(value)
        if parts["cutoff"] is not None:
            fields["cutoff"] = int(parts["cutoff"])
        measure: OwnMeasure = cls.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"measure {name!r}: {where}: {first['msg']}") from None
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"measure {name!r}: {error}") from None
    return measure


def value_of(
    measure: OwnMeasure,
    query_id: str,
    ranked: Sequence[str],
    relevance: Mapping[str, int],
    positive_relevance: int,
) -> float:
    """The measure of one list.

    Raises:
        ValueError: it is no finite number.
    """
    value = measure.per_query(ranked[: measure.cutoff], relevance, positive_relevance)
    if isinstance(value, str) or not math.isfinite(number := float(value)):
        raise ValueError(
            f"measure {measure.type}: query {query_id!r}: expected a finite number, found {value!r}"
        )
    return number


# --- in steps and on workers ----------------------------------------------------------------------


class MeasureName(str):
    """The name of an own measure; the process that unpickles it loads the class, and so says when
    it is not there."""

    origin: Origin

    def __reduce__(self) -> Any:
        return _named, (str(self), self.origin)


def _named(text: str, origin: Origin) -> MeasureName:
    revived(origin)
    name = MeasureName(text)
    name.origin = origin
    return name


def fit_to_travel(names: Iterable[str]) -> tuple[str, ...]:
    """The names, those of own measures as `MeasureName`."""
    return tuple(_travelling(name) for name in names)


def _travelling(name: str) -> str:
    if not is_plugin_name(name):
        return name
    measure = own_measure(name)
    assert isinstance(measure, PlugIn)
    return _named(name, measure.plugin_origin)


def own_code(names: Iterable[str]) -> dict[str, Any]:
    """For a step's spec: the own measures by name, with their code; nothing without one."""
    own = {str(n): own_measure(n).semantic() for n in names if is_plugin_name(n)}
    return {"own_measures": own} if own else {}
