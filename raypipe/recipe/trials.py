"""From a recipe to trials: every combination of the sweep's values, validated on the driver."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from raypipe.config import ConfigError, nearest
from raypipe.models.backbone import Backbone
from raypipe.recipe.evaluation_sets import Untrained
from raypipe.recipe.experiment import ARROW, Experiment
from raypipe.recipe.reading import override, validate
from raypipe.recipe.space import SEED, WHOLE, Axis

ORACLE = "oracle"
"""The row of the best that re-ranking could reach."""
MOST_TRIALS = 10_000
"""Of one sweep: each is a recipe that is checked before work."""
Choice = tuple[str, str, Any]
"""(dotted key, label, value)."""


@dataclass(frozen=True)
class Trial:
    """One combination of the sweep's values, as a recipe of its own."""

    name: str
    experiment: Experiment
    values: Mapping[str, str]
    """Dotted key to the label of its value."""
    chosen: Mapping[str, Any] | None = None
    """Dotted key to the value that validation queries chose (`sweep.select`)."""

    @property
    def row(self) -> str:
        """The row in tables: trials that differ in nothing but their seed share it."""
        labels = [label for key, label in self.values.items() if key != SEED]
        return " / ".join(labels) or f" {ARROW} ".join(self.experiment.stage_names)


def expand(experiment: Experiment) -> list[Trial]:
    """All trials of a comparison in the order of the space, the last key varying fastest; for a
    search, trials that show every value once.

    Raises:
        ConfigError: a combination is not a valid recipe, two have one name, or the recipe's
            `reference` has a name of neither a trial nor another row of the table.
    """
    if experiment.sweep.mode == "search":
        return representatives(experiment)
    axes = experiment.sweep.axes()
    if len(list(islice(combinations(axes), MOST_TRIALS + 1))) > MOST_TRIALS:
        raise ConfigError(
            f"sweep.space: expected at most {MOST_TRIALS:,} combinations, found more; take out "
            "values, or set sweep.mode=search"
        )
    trials = [trial_of(experiment, choices) for choices in combinations(axes)]
    names = [trial.name for trial in trials]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"sweep.space: two trials have one name among {names}; name the values in a mapping"
        )
    for row, members in by_row(trials).items():
        if SEED not in experiment.sweep.space and len(members) > 1:
            raise ConfigError(
                f"sweep.space: two trials share the row {row!r}; name the values in a mapping"
            )
    _check_apart(experiment, trials)
    _check_rows(experiment, [*by_row(trials), *_untrained_too(experiment)])
    return trials


def _check_rows(experiment: Experiment, rows: Sequence[str]) -> None:
    """Refuse references and published values of rows that the table will not have."""
    for name in experiment.reference:
        if name not in rows:
            raise ConfigError(f"reference: no row {name!r}{nearest(name, rows)}")
    if experiment.evaluation.retrieval is not None:  # rows that papers print, and no reference
        rows = [*rows, *map(retrieved_row, rows)]
    for position, table in enumerate(experiment.published):
        for row in {row: None for values in table.values.values() for row in values}:
            if row not in rows:
                raise ConfigError(
                    f"published.{position}.values: no row {row!r}{nearest(row, rows)}"
                )


def _check_apart(experiment: Experiment, trials: Sequence[Trial]) -> None:
    """Refuse rows of one name: of a trial and of something that needs no training, or of two such
    things."""
    zero_shot = f"zero-shot: {Backbone(experiment.backbone).name}"
    made = [*fixed_rows(experiment), *untrained_rows(experiment).values(), zero_shot, ORACLE]
    made += retrieved_untrained(experiment)
    for name in experiment.evaluation.rows:
        if name in made:
            raise ConfigError(
                f"evaluation.rows.{name}: another row of the table has this name; choose another"
            )
    others = [*_untrained_too(experiment), zero_shot, ORACLE]
    for row, (first, *_) in by_row(trials).items():
        if row in others:
            where = "sweep.space" if first.values else "stages"
            raise ConfigError(
                f"{where}: expected rows of different names, found {row!r}, which is the row of "
                "something that is not trained; give what varies, or the stage, another name"
            )


def representatives(experiment: Experiment) -> list[Trial]:
    """Trials that show every value of a search space, to be checked before a resource is claimed.

    Each value of a key, and both ends of a range, with the first values of the other keys.

    Raises:
        ConfigError: a value does not make a valid recipe.
    """
    axes = experiment.sweep.axes()
    options = [_options(axis) for axis in axes]
    trials: dict[str, Trial] = {}
    for shown, choices_of_shown in enumerate(options):
        for choice in choices_of_shown:
            choices: list[Choice] = []
            for position, axis in enumerate(axes):
                if axis.applies({key: label for key, label, _ in choices}):
                    fitting = _fitting(options[position], axes, axis)
                    choices.append(choice if position == shown else fitting)
            trial = trial_of(experiment, choices)
            trials.setdefault(trial.name, trial)
    shown_once = list(trials.values()) or [trial_of(experiment, [])]
    _check_apart(experiment, shown_once)
    return shown_once


def _options(axis: Axis) -> list[Choice]:
    """Every value of a key, or both ends of its range."""
    if axis.range is not None:
        return [(axis.key, f"{end:g}", end) for end in (axis.range.low, axis.range.high)]
    return [(axis.key, label, value) for label, value in axis.values.items()]


def _fitting(options: list[Choice], axes: Sequence[Axis], axis: Axis) -> Choice:
    """The first value of a key under which a later key applies; without such a key its first."""
    for later in axes:
        for label in later.when.get(axis.key, ()):
            return next(choice for choice in options if choice[1] == label)
    return options[0]


def by_row(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """Trials by the row that they are repetitions of, in order."""
    rows: dict[str, list[Trial]] = {}
    for trial in trials:
        rows.setdefault(trial.row, []).append(trial)
    return rows


def combinations(axes: Sequence[Axis]) -> Iterator[list[Choice]]:
    """Every combination; a key whose `when` does not hold is left out of it."""
    yield from _extended([], axes)


def _extended(choices: list[Choice], axes: Sequence[Axis]) -> Iterator[list[Choice]]:
    """The choices with every combination of these further axes."""
    if not axes:
        yield choices
        return
    axis, *later = axes
    if not axis.applies({key: label for key, label, _ in choices}):
        yield from _extended(choices, later)
        return
    for label, value in axis.values.items():
        yield from _extended([*choices, (axis.key, label, value)], later)


def trial_of(experiment: Experiment, choices: Sequence[Choice], name: str | None = None) -> Trial:
    """The recipe with these values.

    Raises:
        ConfigError: it is not a valid recipe.
    """
    tree: dict[str, Any] = experiment.model_dump()  # mode="json" would mask addresses
    labels = {key: label for key, label, _ in choices}
    where = "sweep.space: " + ", ".join(f"{k}={v}" for k, v in labels.items())
    for key, _, value in choices:
        try:
            tree = set_value(tree, key, value)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
    try:
        changed = validate(Experiment, tree, where if labels else "the recipe")
    except ConfigError as error:
        hint = (
            "; a key that only some choices have takes `when`"
            if "unknown key" in str(error)
            else ""
        )
        raise ConfigError(f"{error}{hint}") from None
    name = name or _name(labels) or f" {ARROW} ".join(changed.stage_names)
    return Trial(name, changed, labels)


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
        names.append(f"teacher: {experiment.teacher.title}")
    return names


def untrained_rows(experiment: Experiment) -> dict[Untrained, str]:
    """Names of the rows of the backbone as it comes, by what scores in them."""
    backbone, (first, *_) = Backbone(experiment.backbone).name, fixed_rows(experiment)
    scores: dict[Untrained, str] = {"cosine": "cosine", "fusion": f"cosine + {first}"}
    wanted = experiment.evaluation.untrained
    return {how: f"{backbone}, {scores[how]}, untrained" for how in wanted}


def retrieved_untrained(experiment: Experiment) -> list[str]:
    """The name of the row of the backbone as it comes over the whole corpus, if it is asked for."""
    if experiment.evaluation.retrieval is None or (model := experiment.retriever) is None:
        return []
    return [f"{Backbone(model.backbone).name}, retrieving, untrained"]


def retrieved_row(row: str) -> str:
    """The name of the row of a trained bi-encoder over the whole corpus.

    Args:
        row: of the trial.
    """
    return f"{row}, retrieving"


def _untrained_too(experiment: Experiment) -> list[str]:
    made = [*fixed_rows(experiment), *untrained_rows(experiment).values()]
    return [*made, *retrieved_untrained(experiment), *experiment.evaluation.rows]


def _has(tree: Any, key: str) -> bool:
    """Whether the tree has something at a dotted key."""
    head, _, rest = key.partition(".")
    there = isinstance(tree, Mapping) and head in tree
    return there and (not rest or _has(tree[head], rest))


def set_value(tree: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The tree with a key of the space set.

    A mapping without a `type` changes the fields that it names and leaves the others; one that is
    not in the tree is set whole.
    """
    if isinstance(value, Mapping) and "type" not in value and (key == WHOLE or _has(tree, key)):
        for name, inner in value.items():
            tree = set_value(tree, name if key == WHOLE else f"{key}.{name}", inner)
        return tree
    return override(Experiment, tree, key, value)
