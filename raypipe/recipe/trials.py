"""From a recipe to trials: every combination of the sweep's values, validated on the driver."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raypipe.config import ConfigError, nearest
from raypipe.recipe.experiment import ARROW, Experiment
from raypipe.recipe.reading import override, validate
from raypipe.recipe.space import SEED, WHOLE, Axis


@dataclass(frozen=True)
class Trial:
    """One combination."""

    name: str
    experiment: Experiment
    values: Mapping[str, str]
    """Dotted key to the label of its value."""
    chosen: Mapping[str, Any] | None = None
    """Dotted key to the value that validation queries chose for it (`sweep.select`)."""

    @property
    def row(self) -> str:
        """The row in tables: trials that differ in nothing but their seed share it."""
        labels = [label for key, label in self.values.items() if key != SEED]
        return " / ".join(labels) or f" {ARROW} ".join(self.experiment.stage_names)


Choice = tuple[str, str, Any]
"""(dotted key, label, value)."""


def expand(experiment: Experiment) -> list[Trial]:
    """All trials of a comparison in the order of the space, the last key varying fastest; of a
    search, trials that show every value once.

    Raises:
        ConfigError: a combination is not a valid recipe, two have one name, or the recipe's
            `reference` names neither a trial nor another row of the table.
    """
    if experiment.sweep.mode == "search":
        return representatives(experiment)
    trials = [trial_of(experiment, choices) for choices in combinations(experiment.sweep.axes())]
    names = [trial.name for trial in trials]
    if len(set(names)) < len(names):
        raise ConfigError(f"sweep.space: two trials have one name among {names}")
    for row, members in by_row(trials).items():
        if SEED not in experiment.sweep.space and len(members) > 1:
            raise ConfigError(f"sweep.space: two trials share the row {row!r}")
    _check_rows(experiment, [*by_row(trials), *fixed_rows(experiment)])
    return trials


def _check_rows(experiment: Experiment, rows: Sequence[str]) -> None:
    reference = experiment.reference
    if reference is not None and reference not in rows:
        raise ConfigError(f"reference: no row {reference!r}{nearest(reference, rows)}")
    for place, table in enumerate(experiment.published):
        for named in {row: None for values in table.values.values() for row in values}:
            if named not in rows:
                near = nearest(named, rows)
                raise ConfigError(f"published.{place}.values: no row {named!r}{near}")


def representatives(experiment: Experiment) -> list[Trial]:
    """Trials that show every value of a search space, to be checked before a resource is claimed.

    Each value of a key, and both ends of a range, with the first values of the other keys.

    Raises:
        ConfigError: one is not a valid recipe.
    """
    axes = experiment.sweep.axes()
    options = [
        [(a.key, f"{v:g}", v) for v in (a.range.low, a.range.high)]
        if a.range is not None
        else [(a.key, label, value) for label, value in a.values.items()]
        for a in axes
    ]
    found: dict[str, Trial] = {}
    for place, given in enumerate(options):
        for choice in given:
            chosen: list[Choice] = []
            for other, axis in enumerate(axes):
                labels = {key: label for key, label, _ in chosen}
                if axis.applies(labels):
                    chosen.append(
                        choice if other == place else _fitting(options[other], axes, axis)
                    )
            trial = trial_of(experiment, chosen)
            found.setdefault(trial.name, trial)
    return list(found.values()) or [trial_of(experiment, [])]


def _fitting(options: list[Choice], axes: Sequence[Axis], axis: Axis) -> Choice:
    """The first value of another key, the one that later keys wait for if there is such."""
    for later in axes:
        for label in later.when.get(axis.key, ()):
            return next(one for one in options if one[1] == label)
    return options[0]


def by_row(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """Trials by the row that they are repetitions of, in order."""
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        found.setdefault(trial.row, []).append(trial)
    return found


def combinations(axes: Sequence[Axis]) -> Iterator[list[Choice]]:
    """Every combination; a key whose `when` does not hold is left out of it."""

    def further(place: int, chosen: list[Choice]) -> Iterator[list[Choice]]:
        if place == len(axes):
            yield chosen
            return
        axis = axes[place]
        if not axis.applies({key: label for key, label, _ in chosen}):
            yield from further(place + 1, chosen)
            return
        for label, value in axis.values.items():
            yield from further(place + 1, [*chosen, (axis.key, label, value)])

    return further(0, [])


def trial_of(experiment: Experiment, choices: Sequence[Choice], name: str | None = None) -> Trial:
    """The recipe with these values.

    Raises:
        ConfigError: it is not a valid recipe.
    """
    tree: dict[str, Any] = experiment.model_dump(mode="json")
    labels = {key: label for key, label, _ in choices}
    where = "sweep.space: " + ", ".join(f"{k}={v}" for k, v in labels.items())
    for key, _, value in choices:
        try:
            tree = set_value(tree, key, value)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
    try:
        one = validate(Experiment, tree, where if labels else "the recipe")
    except ConfigError as error:
        hint = (
            "; a key that only some choices have takes `when`"
            if "unknown key" in str(error)
            else ""
        )
        raise ConfigError(f"{error}{hint}") from None
    return Trial(name or _name(labels) or f" {ARROW} ".join(one.stage_names), one, labels)


def _name(labels: Mapping[str, str]) -> str:
    bare = {k: f"seed {v}" if k == SEED and v.isdigit() else v for k, v in labels.items()}
    return " / ".join(bare.values())


def fixed_rows(experiment: Experiment) -> list[str]:
    """Names of the rows that need no training, in table order.

    The first stage has its own name where it is the same on all test sets.
    """
    labels = {experiment.source(role).label for role in experiment.test_sets()}
    names = [labels.pop() if len(labels) == 1 else "first stage"]
    if experiment.teacher is not None:
        names.append(f"teacher: {experiment.teacher.label}")
    return names


def set_value(tree: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A mapping changes the fields it names and leaves the others, unless it has a `type`."""
    if isinstance(value, Mapping) and "type" not in value:
        for name, inner in value.items():
            tree = set_value(tree, name if key == WHOLE else f"{key}.{name}", inner)
        return tree
    return override(Experiment, tree, key, value)
