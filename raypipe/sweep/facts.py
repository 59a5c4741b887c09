"""What a trained stage left in its checkpoint about itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from raypipe.artifacts import Artifact, Builder
from raypipe.train.stage import Stage


def trainer_facts(checkpoint: Artifact) -> dict[str, Any]:
    """pairs, tokens, seconds, flops, best step of a trained stage."""
    facts: dict[str, Any] = json.loads((checkpoint.local() / "trainer.json").read_text())
    return {"workers": checkpoint.counts.get("workers", 1), **facts}


def chain_facts(chain: Sequence[Stage], builder: Builder) -> list[dict[str, Any]] | None:
    """Of every stage of a trial; None where a checkpoint was deleted after it was judged."""
    found = [builder.find(stage) for stage in chain]
    standing = [trainer_facts(one) for one in found if one is not None]
    return standing if len(standing) == len(chain) else None


def totals(facts: Sequence[Mapping[str, Any]], price: float | None) -> dict[str, float]:
    """Sums over stages; device seconds, and with a price per device hour their cost."""
    found = {k: float(sum(f[k] for f in facts)) for k in ("pairs", "tokens", "seconds", "flops")}
    found["device_seconds"] = float(sum(f["seconds"] * f["workers"] for f in facts))
    if price is not None:
        found["cost"] = found["device_seconds"] / 3600 * price
    return found
