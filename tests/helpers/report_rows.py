"""A comparison that several tests share: twelve queries, two test sets, every kind of row.

Regenerate the golden files with: python tests/helpers/report_rows.py
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

from rich.console import Console

from raypipe.evaluation.report.contents import Report, SearchedTrial, SetFacts, StageHistory
from raypipe.evaluation.report.first_documents import ListHeads
from raypipe.evaluation.report.page import to_html
from raypipe.evaluation.report.text import print_report, to_markdown
from raypipe.evaluation.results import QueryCost, Row, StageFacts, Statistics

GOLDEN = Path(__file__).parents[1] / "evaluation" / "report" / "golden"
MEASURES = ("nDCG@10", "RR@10", "Judged@10")
SETS = (
    SetFacts(
        "test",
        ("pydoc, test split", "12 test queries, 1,000 documents", "BM25 re-ranked to depth 100"),
        MEASURES,
        published={"nDCG@10": {"BM25": 0.45, "MiniLM | mnrl": 0.5}},
        sources=("Someone et al. 2025, table 2",),
    ),
    SetFacts("splade", ("the same over SPLADE",), ("RR@10",), suite="trec-dl"),
)
STAGES = {
    "contrastive": StageFacts("contrastive", "infonce", 1e-4, 8, 64, 512, 4096, "a1b2c3d4e5f60718"),
    "distil": StageFacts("distil", "ranknet", 2e-5, 2, 100, 200, 6400, "0f1e2d3c4b5a6978"),
}
TRIALS = (
    SearchedTrial(0, {"lr": "0.001"}, "finished", 0.4),
    SearchedTrial(1, {"lr": "0.1", "loss": "hinge"}, "pruned", 0.1),
    SearchedTrial(2, {"lr": "7"}, "failed", None),
    SearchedTrial(3, {"lr": "0.002"}, "finished", 0.6),
)


FIRST = ListHeads(
    {"BM25": {"q0": ["d1", "d2"], "q1": ["d3"]}, "MiniLM | mnrl > kl": {"q0": ["d2", "d1"]}},
    {"q0": "What is <b>bold</b>?"},
    {"d1": "The first document", "d2": "The second, with </script> in it"},
)


def row(
    name, kind, ndcg, rr=None, judged=1.0, stages=(), reused=False, seconds=None, seeds=None, **more
) -> Row:
    """Seeds differ by eighths on some queries."""

    def per_query(seed: int) -> dict[str, dict[str, float]]:
        bump = [0.125 * seed if i % 4 == seed % 4 and v < 0.75 else 0.0 for i, v in enumerate(ndcg)]
        values = {
            "nDCG@10": [v + b for v, b in zip(ndcg, bump, strict=True)],
            "RR@10": rr if rr is not None else ndcg,
            "Judged@10": [judged] * len(ndcg),
        }
        return {m: {f"q{i}": v for i, v in enumerate(vs)} for m, vs in values.items()}

    found = [per_query(seed) for seed in range(len(seeds or [0]))]
    facts = tuple(STAGES[stage] for stage in stages)
    return Row(
        name,
        kind,
        {"test": found, "splade": found},
        tuple(seeds or ()),
        facts,
        sum(stage.pairs for stage in facts) or None,
        seconds,
        reused,
        **more,
    )


def rows() -> list[Row]:
    """Quarters and eighths, so that no figure hangs on the last bit."""
    base = [0.0, 0.25, 0.5, 0.75, 0.25, 0.5, 0.0, 1.0, 0.5, 0.25, 0.75, 0.5]
    small = [v + (0.125 if i % 3 == 0 and v < 1 else 0.0) for i, v in enumerate(base)]
    large = [min(1.0, v + 0.25 + 0.125 * (i % 2)) for i, v in enumerate(base)]
    both, three = ("contrastive", "distil"), [1, 2, 3]
    curve = {10: 0.5, 20: 0.5625, 50: 0.625}
    depths = {"test": [{d: v + seed / 16 for d, v in curve.items()} for seed in range(3)]}
    small_model = {"test": QueryCost(12.5, 50.0, 0.0, 90_400_000)}
    llm = {"test": QueryCost(2_350.0, 0.0, 12.0, 0)}
    return [
        row("BM25", "first_stage", base, base, judged=0.5),
        row("MiniLM zero-shot", "zero_shot", base, base[::-1]),
        row("RankVicuna", "teacher", small, base, costs=llm),
        row("oracle", "oracle", [1.0] * 12, [1.0] * 12),
        row(
            *("MiniLM | mnrl", "trained", small, small, 0.75, ["contrastive"], False, 9.4, three),
            depths=depths,
            costs=small_model,
        ),
        row("MiniLM | mnrl > kl", "trained", large, small, 1.0, both, True, 3671.0, three),
        row("tiny", "trained", small[::-1], base, 1.0, ["distil"], False, 60.0, [1]),
        Row("broken", "trained", {}, (1,), error="FloatingPointError: the loss is nan"),
    ]


def report(**changes) -> Report:
    """Everything a report can hold; few resamples, as most tests read no interval."""
    curves = {
        one.name: [
            StageHistory(
                stage.name,
                seed,
                {
                    "loss": [(i, 2.0 / i + 0.1 * seed) for i in range(1, 65)],
                    "val/nDCG@10": [(i, 0.3 + i / 300) for i in (16, 32, 48, 64)],
                },
            )
            for seed in one.seeds
            for stage in one.stages
        ]
        for one in rows()
        if one.stages
    }
    given = {
        "name": "strategies",
        "rows": tuple(rows()),
        "sets": SETS,
        "references": ("MiniLM | mnrl",),
        "statistics": Statistics(resamples=100),
        "notes": ("fever (beir/fever/test) could not be had: no network",),
        "links": {"tiny": ["http://127.0.0.1:5000/#/experiments/1/runs/abc"]},
        "curves": curves,
        "first": {"test": FIRST},
        "origin": {"date": "2026-01-02 03:04 UTC", "machine": "a laptop"},
        "recipes": {"strategies": "name: strategies\nseed: 1\n"},
    }
    return Report(**{**given, **changes})


FULL = report(statistics=Statistics())
"""The report of the golden files; it computes its statistics once, when a test first reads them."""


def printed(given: Report, width: int, *, notes: bool = True) -> str:
    out = io.StringIO()
    print_report(given, Console(file=out, width=width), notes=notes)
    return out.getvalue()


def without_drawings(page: str) -> str:
    """Versions of matplotlib draw differently."""
    return re.sub("<svg.*?</svg>", "<svg/>", page, flags=re.DOTALL)


def _regenerate() -> None:
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / "report.md").write_text(to_markdown(FULL), "utf-8")
    (GOLDEN / "report.json").write_text(json.dumps(FULL.json(), indent=1) + "\n", "utf-8")
    (GOLDEN / "table.txt").write_text(printed(FULL, 150), "utf-8")
    (GOLDEN / "page.html").write_text(without_drawings(to_html(FULL)) + "\n", "utf-8")


if __name__ == "__main__":
    _regenerate()
