"""Reports of tracked jobs, also of jobs that ended long ago, one or several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import TypeVar

from raypipe.config import ConfigError, nearest, twice_in
from raypipe.evaluation.report.contents import Report, SetFacts
from raypipe.evaluation.report.first_documents import ListHeads
from raypipe.evaluation.results import PerQuery, Row
from raypipe.evaluation.same_run import joined, same_run
from raypipe.sweep.tracked_report import read_report
from raypipe.tracking.stored_runs import TrackingStore

T = TypeVar("T")


def report_of(
    names: Sequence[str],
    tracking: str | None = None,
    references: Sequence[str] = (),
    margin: float | None = None,
) -> Report:
    """The comparison of one tracked job, or of all rows of several.

    Args:
        names: run ids of jobs, or names of experiments, whose latest job is meant; none means the
            latest job of all. Test sets that only some of them have get a table each.
        tracking: MLflow address; None is the default store.
        references: other reference rows; none means those of the first job.
        margin: another margin of the equivalence tests.

    Raises:
        ConfigError: no such job, a job without rows, jobs without a measure in common, or a
            reference that is unknown or named twice.
    """
    store = TrackingStore(tracking)
    named = [store.job(name) for name in names] or [store.job()]
    jobs = list({job.run_id: job for job in named}.values())
    reports = [read_report(store, job) for job in jobs]
    for report, job in zip(reports, jobs, strict=True):
        if not any(row.results for row in report.rows):
            raise ConfigError(
                f"tracked job {job.name} ({job.run_id}) has no finished row yet; wait for its "
                "first one, or name another job"
            )
    report = reports[0]
    for other, job in zip(reports[1:], jobs[1:], strict=True):
        report = beside(report, other, f"{job.name} {job.run_id[:6]}")
    if references:
        rows = [row.name for row in report.rows if not row.error]
        for name in references:
            if name not in rows:
                raise ConfigError(f"--reference: no row {name!r}{nearest(name, rows)}")
        if twice := twice_in(references):
            raise ConfigError(f"--reference: found {twice!r} twice; name it once")
        report = replace(report, references=tuple(references))
    if margin is not None:
        report = replace(report, statistics=report.statistics.replace(margin=margin))
    return report


def beside(report: Report, other: Report, name: str) -> Report:
    """Rows of another comparison beside those of this one.

    A test set that both have, with the same queries, is one table with the measures that both have;
    every other test set has a table of its own. Rows of the same run are one row; another row or
    test set whose name is taken gets the other job's name behind its own.

    Args:
        name: of the other job; no job that is there already has this name.

    Raises:
        ConfigError: they have a test set in common and no measure on it.
    """
    shared = {facts.name: found for facts in other.sets if (found := _shared(report, other, facts))}
    taken = {facts.name for facts in report.sets}
    names_of_sets = {
        facts.name: facts.name
        if facts.name in shared or facts.name not in taken
        else f"{facts.name} ({name})"
        for facts in other.sets
    }
    rows = list(report.rows)
    names: dict[str, str] = {}
    for own in other.rows:
        row = _on_sets(own, names_of_sets)
        twin = next((i for i, known in enumerate(rows) if same_run(known, row)), None)
        if twin is None:
            known_names = {row.name for row in rows}
            names[own.name] = own.name if own.name not in known_names else f"{own.name} ({name})"
            rows.append(replace(row, name=names[own.name]))
        else:
            names[own.name] = rows[twin].name
            rows[twin] = joined(rows[twin], row)
    added = [names[row.name] for row in other.rows]
    sets = [_with_rows(facts, report, added, shared.get(facts.name)) for facts in report.sets]
    slices = {facts.name: facts.slices for facts in other.sets if facts.name in shared}
    sets = [_with_slices(facts, slices.get(facts.name, {}), name) for facts in sets]
    for facts in other.sets:
        if facts.name not in shared:
            references = tuple(names[name] for name in other.references_on(facts))
            judged = tuple(names[row.name] for row in other.rows_on(facts))
            own_name = names_of_sets[facts.name]
            sets.append(replace(facts, name=own_name, rows=judged, references=references))
    return replace(
        report,
        name=f"{report.name}, {other.name}" if other.name != report.name else report.name,
        rows=tuple(rows),
        sets=tuple(sets),
        notes=tuple(dict.fromkeys([*report.notes, *other.notes])),
        links=_renamed(other.links, names, report.links),
        curves=_renamed(other.curves, names, report.curves),
        origin=report.origin | {f"{what}, {name}": text for what, text in other.origin.items()},
        first=_first_beside(report, other, names, names_of_sets),
        recipes=report.recipes
        | {name if job in report.recipes else job: text for job, text in other.recipes.items()},
    )


def _first_beside(
    report: Report, other: Report, names: Mapping[str, str], names_of_sets: Mapping[str, str]
) -> dict[str, ListHeads]:
    """Test set -> how the rows of both begin."""
    found = dict(report.first)
    for role, first in other.first.items():
        name, renamed = names_of_sets.get(role, role), first.renamed(names)
        found[name] = found[name].beside(renamed) if name in found else renamed
    return found


def _shared(report: Report, other: Report, facts: SetFacts) -> tuple[str, ...]:
    """The measures that both have on a test set, if they judge the same queries there.

    Raises:
        ConfigError: they judge the same queries by other measures.
    """
    known = next((known for known in report.sets if known.name == facts.name), None)
    left, right = (_values_on(each, facts.name) for each in (report, other))
    if known is None or left is None or right is None:
        return ()
    if _queries(left) != _queries(right):
        return ()
    if not (common := tuple(m for m in known.measures if m in facts.measures)):
        raise ConfigError(
            f"{report.name} and {other.name} have no measure in common on {facts.name!r}; report "
            "them one by one"
        )
    return common


def _values_on(report: Report, test_set: str) -> PerQuery | None:
    return next((row.results[test_set][0] for row in report.rows if test_set in row.results), None)


def _queries(values: PerQuery) -> Set[str]:
    return next(iter(values.values())).keys()


def _on_sets(row: Row, names: Mapping[str, str]) -> Row:
    """The row with its test sets renamed."""
    fields = {
        field: {names.get(name, name): value for name, value in getattr(row, field).items()}
        for field in ("results", "runs", "tied", "depths", "costs", "first")
    }
    return replace(row, **fields)


def _with_rows(
    facts: SetFacts, report: Report, added: Sequence[str], measures: tuple[str, ...] | None
) -> SetFacts:
    """A test set of the report; with the other job's rows and the common measures, if it is the
    other job's too."""
    own = tuple(row.name for row in report.rows_on(facts))
    if measures is None:
        return replace(facts, rows=own)
    return replace(facts, rows=tuple(dict.fromkeys([*own, *added])), measures=measures)


def _with_slices(facts: SetFacts, added: Mapping[str, Mapping[str, str]], name: str) -> SetFacts:
    """The test set with the slices of the other job; one that groups otherwise under a name that is
    taken gets the other job's name behind its own."""
    own = dict(facts.slices)
    for slice_name, groups in added.items():
        taken = slice_name in own and own[slice_name] != groups
        own[f"{slice_name} ({name})" if taken else slice_name] = groups
    return replace(facts, slices=own)


def _renamed(
    added: Mapping[str, Sequence[T]], names: Mapping[str, str], known: Mapping[str, Sequence[T]]
) -> dict[str, Sequence[T]]:
    """Row name to what both jobs have of the row."""
    out = {row: list(values) for row, values in known.items()}
    for row, values in added.items():
        kept = out.setdefault(names[row], [])
        kept += [value for value in values if value not in kept]
    return dict(out)
