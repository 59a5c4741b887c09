"""Sentences about what was written, kept and dropped of synthetic queries, for the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from raypipe.storage.artifacts import Step
from raypipe.synthesis.held_out import HeldOut
from raypipe.synthesis.known_items import SyntheticQueries
from raypipe.synthesis.synthetic import Synthetic

CountsOf = Callable[[Step], Mapping[str, Any]]
"""The counters of a standing artifact; empty for one that is not there."""


def synthetic_notes(
    sets: Iterable[tuple[str, SyntheticQueries]], counts_of: CountsOf
) -> Iterator[str]:
    """One sentence per distinct draw of passages and generation, then one per set and filter.

    Args:
        sets: each with what it is for, such as `training queries of distil`.
    """
    said: set[str] = set()
    for what, step in sets:
        if step.generated.digest not in said:
            said.add(step.generated.digest)
            yield _of_generation(step, counts_of)
        for part in step.chain():
            if part.digest not in said:
                said.add(part.digest)
                yield f"{what}: {_kept(part, counts_of(part))}"


def _of_generation(step: SyntheticQueries, counts_of: CountsOf) -> str:
    synthetic = step.queries
    assert isinstance(synthetic, Synthetic)
    drawn, written = counts_of(synthetic.drawn()), counts_of(step.generated)
    passages = written.get("rows", 0)
    parts = [
        f"synthetic queries over {synthetic.dataset}: {written.get('queries', 0):,} for "
        f"{passages:,} passages ({synthetic.generator.type}: {_by(written, 'queries_')})"
    ]
    if missing := drawn.get("passages_missing"):
        parts.append(f"{missing:,} passages fewer than asked for: the corpus has no more")
    for words, prefix in (("dropped", "dropped_"), ("repaired", "repaired_")):
        if found := _by(written, prefix):
            parts.append(f"{words}: {found}")
    if left := _by(drawn, "documents_left_out_"):
        parts.append(f"documents that leave training and its lists: {left}")
    return "; ".join([*parts, _hold_out(synthetic)])


def _hold_out(synthetic: Synthetic) -> str:
    if isinstance(synthetic.hold_out, HeldOut):
        return f"hold_out: {synthetic.hold_out.passages:,} passages"
    if synthetic.hold_out == "test_judged":
        return "hold_out: what the test queries judge"
    return "hold_out: none, so training may have read what is relevant in the test"


def _kept(step: SyntheticQueries, counts: Mapping[str, Any]) -> str:
    """How many queries a set has, and of a filter the share of each type that it keeps."""
    dropped = _by(counts, "dropped_")
    behind = f"; dropped: {dropped}" if dropped else ""
    if len(step.chain()) > 1:
        behind = f" after {type(step).filtered_by}: {_rates(counts)}{behind}"
    return f"{counts.get('queries', 0):,} synthetic queries ({_by(counts, 'queries_of_')}){behind}"


def _rates(counts: Mapping[str, Any]) -> str:
    """Such as `kept of title 60 %, of web 5 %`."""
    asked = {
        name.removeprefix("asked_of_"): number
        for name, number in counts.items()
        if name.startswith("asked_of_")
    }
    kept = {
        kind: number
        - sum(
            value
            for name, value in counts.items()
            if name.startswith("dropped_") and name.endswith(f"_of_{kind}")
        )
        for kind, number in asked.items()
    }
    return "kept " + ", ".join(
        f"of {kind.replace('_', ' ')} {kept[kind] / asked[kind]:.0%}" for kind in asked
    )


def _by(counts: Mapping[str, Any], prefix: str) -> str:
    """The counters with a prefix that are not 0, such as `title 300, keywords 240`."""
    return ", ".join(
        f"{name.removeprefix(prefix).replace('_', ' ')} {value:,}"
        for name, value in counts.items()
        if name.startswith(prefix) and value
    )
