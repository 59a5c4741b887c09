"""Values per query, and how lists begin: of two rows side by side on the page, to be filtered and
sorted there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from raypipe.evaluation.comparison import tested
from raypipe.evaluation.report.contents import Report, SetFacts
from raypipe.names import printable

MOST_VALUES = 300_000
"""Of a page's table: two megabytes. `raypipe paper` writes any number."""


def seed_means(report: Report, name: str, test_set: str, measure: str) -> dict[str, float]:
    """query_id -> mean of the row's values over its seeds."""
    row = next(row for row in report.rows if row.name == name)
    seeds = [per_query[measure] for per_query in row.results[test_set]]
    return {q: math.fsum(per_query[q] for per_query in seeds) / len(seeds) for q in seeds[0]}


def per_query_json(report: Report, test_set: SetFacts) -> str:
    """What the page's script reads, as JSON that no HTML parser ends early; empty without two rows
    to compare, or with more values than a page should hold.

    `left` and `right` are the rows that stand there first: the reference, or else the first row,
    and the best of the others, the oracle apart.
    """
    measure = next(filter(tested, test_set.measures), None)
    lines = [line for line in report.lines[test_set.name] if line.means]
    if measure is None or len(lines) < 2:
        return ""
    values = {
        line.row.name: seed_means(report, line.row.name, test_set.name, measure) for line in lines
    }
    queries = list(next(iter(values.values())))
    if len(queries) * len(lines) > MOST_VALUES:
        return ""
    names = list(values)
    left = names.index(next(iter(report.references_on(test_set)), names[0]))
    means = {i: line.means[measure] for i, line in enumerate(lines) if line.row.kind != "oracle"}
    right = max((i for i in means if i != left), key=lambda i: means[i], default=1 - left)
    return _in_html(
        {
            "measure": measure,
            "queries": list(map(printable, queries)),
            "rows": list(map(printable, names)),
            "values": [[round(of_row[q], 4) for q in queries] for of_row in values.values()],
            "left": left,
            "right": right,
            **_beginnings(report, test_set, queries, names),
        }
    )


def _beginnings(
    report: Report, test_set: SetFacts, queries: Sequence[str], names: Sequence[str]
) -> dict[str, object]:
    """`texts` of the queries, `docs` as ids with their texts, and `first`: per row and query the
    places of its first documents among these; nothing where no list is known."""
    known = report.first.get(test_set.name)
    if known is None:
        return {}
    places: dict[str, int] = {}
    lists = [[known.rows.get(row, {}).get(q, ()) for q in queries] for row in names]
    first = [[[places.setdefault(d, len(places)) for d in ids] for ids in row] for row in lists]
    docs = [[printable(doc_id), printable(known.docs.get(doc_id, ""))] for doc_id in places]
    texts = [printable(known.queries.get(q, "")) for q in queries]
    return {"texts": texts, "docs": docs, "first": first}


def _in_html(content: Mapping[str, object]) -> str:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
