"""Effectiveness per query. The only module that imports ir_measures."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from raypipe.config import nearest
from raypipe.evaluation.own_measures import OwnMeasure, own_measure, value_of
from raypipe.evaluation.ranking import ranking
from raypipe.plugins.loading import is_plugin_name
from raypipe.records import METRICS

Judgements = dict[str, dict[str, int]]
"""query_id -> doc_id -> relevance."""


def parse_measures(names: Sequence[str]) -> list[Any]:
    """The ir_measures objects of names such as "nDCG@10", "RR(rel=2)@10", "AP", "Judged@10"; an
    `OwnMeasure` for a name such as "my_package.module:Class@10".

    Raises:
        ValueError: ir_measures does not know a name or cannot compute it here, or the name is a
            count, which has no mean over queries.
    """
    return [own_measure(name) if is_plugin_name(name) else _parse(name) for name in names]


@functools.cache  # recipes name the same few measures thousands of times: one by trial and test set
def _parse(name: str) -> Any:
    import ir_measures
    from ir_measures.measures.base import MeanAgg

    registry: dict[str, Any] = ir_measures.measures.registry
    pipeline: Any = ir_measures.DefaultPipeline
    base = name.strip().split("@")[0].split("(")[0]
    if base not in registry:
        raise ValueError(f"measure {name!r}: there is no {base!r}{_suggestion(base, registry)}")
    needs = ", ".join(k for k, v in registry[base].SUPPORTED_PARAMS.items() if v.required)
    form = (
        f"expected a form such as nDCG@10 or RR(rel=2)@10{f'; {base} needs {needs}' * bool(needs)}"
    )
    try:
        measure = ir_measures.parse_measure(name)
        supported = pipeline.supports(measure)
    except (ValueError, NameError, AssertionError) as error:
        raise ValueError(f"measure {name!r}: {error}; {form}") from None
    if measure.params.get("cutoff", 1) < 1:
        raise ValueError(
            f"measure {name!r}: expected a cutoff of at least 1; write for example {base}@10"
        )
    if not isinstance(measure.aggregator(), MeanAgg):
        raise ValueError(
            f"measure {name!r} is a count; expected a measure with a mean over queries, such as "
            "nDCG@10"
        )
    if not supported:
        raise ValueError(
            f"measure {name!r}: no installed provider of ir_measures computes it; choose another "
            "measure, or install its provider (https://ir-measur.es)"
        )
    return measure


def _suggestion(base: str, registry: dict[str, Any]) -> str:
    same = [name for name in registry if name.casefold() == base.casefold()]
    if same:  # ndcg: nDCG rather than the alias NDCG
        return nearest(registry[same[0]].NAME, [registry[same[0]].NAME])
    return nearest(base, [name for name in registry if name.isascii()])


def bounded(name: str, depth: int) -> str:
    """The measure's name on lists of this depth: AP of lists of 100 is AP@100.

    The other measures without a cutoff are as rarely named as they are moved by one.
    """
    base = name.partition("(")[0].strip()
    return f"{name.strip()}@{depth}" if base in ("AP", "MAP") and "@" not in name else name


def cutoff(name: str) -> int | None:
    """How many documents of a list decide a measure; None if all may."""
    (measure,) = parse_measures([name])
    found = None if isinstance(measure, OwnMeasure) else measure.params.get("cutoff")
    return None if found is None else int(found)


def evaluate(
    run: pa.Table, qrels: pa.Table, measures: Sequence[str], positive_relevance: int = 1
) -> pa.Table:
    """METRICS of a run: one row per judged query and measure, by query, then measure as given.

    Only the order of a list counts (ir_measures gets -rank as the score). Every query of `qrels`
    has a row for every measure: a query without results gets the measure's default, 0. Queries of
    the run without any judgement are left out, see `unjudged_queries`.

    Args:
        run: RUN or CANDIDATES.
        measures: names; each stands in the result exactly as given.
        positive_relevance: the lowest relevance, at least 1, that binary measures (RR, AP, R, P,
            Success ...) count as relevant where the name itself gives no `rel`.

    Raises:
        ValueError: a measure is unknown, `qrels` is empty, a query has two rows, or a list holds
            a document twice.
    """
    if positive_relevance < 1:
        raise ValueError(
            f"expected a positive_relevance of at least 1, found {positive_relevance}; TREC DL "
            "counts from 2, binary judgements from 1"
        )
    judged, least = _judgements(qrels), positive_relevance
    names = list(dict.fromkeys(measures))
    wanted = [_with_relevance(m, positive_relevance) for m in parse_measures(names)]
    ranked = {
        query_id: {doc_id: -float(rank) for rank, doc_id in enumerate(doc_ids, start=1)}
        for query_id, doc_ids in ranking(run).items()
        if doc_ids and query_id in judged  # ir_measures' Judged divides by the length of the list
    }
    own = {measure for measure in wanted if isinstance(measure, OwnMeasure)}
    values = _values(set(wanted) - own, judged, ranked) | {
        (query_id, measure): value_of(measure, query_id, list(docs), judged[query_id], least)
        for measure in own
        for query_id, docs in ranked.items()
    }
    rows = [
        (query_id, name, values.get((query_id, measure), getattr(measure, "DEFAULT", 0.0)))
        for query_id in judged
        for name, measure in zip(names, wanted, strict=True)
    ]
    columns = list(zip(*rows, strict=True)) or [()] * len(METRICS)
    return pa.table(dict(zip(METRICS.names, columns, strict=True)), schema=METRICS)


def _values(
    wanted: set[Any], judged: Judgements, ranked: dict[str, dict[str, float]]
) -> dict[tuple[str, Any], float]:
    """The value of every judged query that has results, by query and measure.

    A negative relevance counts as 0: where a query has no other, trec_eval reads memory that is not
    its own, and its nDCG may not end. Only infAP has a meaning for it.
    """
    import ir_measures

    clipped = {q: {d: max(r, 0) for d, r in docs.items()} for q, docs in judged.items()}
    inferred = {measure for measure in wanted if measure.NAME == "infAP"}
    return {
        (metric.query_id, metric.measure): float(metric.value)
        for measures, qrels in ((wanted - inferred, clipped), (inferred, judged))
        if measures
        for metric in ir_measures.iter_calc(measures, qrels, ranked)
    }


def unjudged_queries(run: pa.Table, qrels: pa.Table) -> int:
    """How many queries of the run have no judgement at all; `evaluate` leaves them out."""
    return len(set(run["query_id"].to_pylist()) - set(qrels["query_id"].to_pylist()))


def means(metrics: pa.Table) -> dict[str, float]:
    """Mean over queries per measure, measures in order of first appearance."""
    values: dict[str, list[float]] = {}
    for name, value in zip(
        metrics["measure"].to_pylist(), metrics["value"].to_pylist(), strict=True
    ):
        values.setdefault(name, []).append(value)
    return {name: math.fsum(v) / len(v) for name, v in values.items()}


def _judgements(qrels: pa.Table) -> Judgements:
    out: Judgements = {}
    columns = (qrels[name].to_pylist() for name in ("query_id", "doc_id", "relevance"))
    for query_id, doc_id, relevance in zip(*columns, strict=True):
        out.setdefault(query_id, {})[doc_id] = relevance
    if not out:
        raise ValueError("expected judgements, found empty qrels; choose a split that has them")
    return out


def _with_relevance(measure: Any, positive_relevance: int) -> Any:
    if isinstance(measure, OwnMeasure):
        return measure
    # A default of 1 marks the binary measures; elsewhere `rel` changes what is measured.
    parameter = measure.SUPPORTED_PARAMS.get("rel")
    if parameter is None or parameter.default != 1 or "rel" in measure.params:
        return measure
    return measure if positive_relevance == 1 else measure(rel=positive_relevance)
