"""What a row's runs took, from the manifests of what made them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from raypipe.evaluation.results import QueryCost
from raypipe.runs.metrics import Metrics
from raypipe.storage.artifacts import Artifact, Step
from raypipe.storage.builder import Builder

_SCORING = ("run", "teacher")
"""Kinds of steps that score lists, or combine what scored them."""
_READ = (*_SCORING, "embeddings")
"""Kinds of steps that a model's weights stand behind."""
_WEIGHTS = (".safetensors", ".gguf", ".bin")


def query_cost(seeds: Sequence[Metrics], builder: Builder) -> QueryCost | None:
    """What a query took of a row's runs, the mean over its seeds; None where no model scored, and
    where a part of it is gone."""
    costs = [_cost(step.run_step, builder) for step in seeds]
    known = [cost for cost in costs if cost is not None]
    if not known or len(known) < len(costs):
        return None
    return QueryCost(
        milliseconds=sum(cost.milliseconds for cost in known) / len(known),
        pairs=sum(cost.pairs for cost in known) / len(known),
        requests=sum(cost.requests for cost in known) / len(known),
        weights=known[0].weights,
    )


def _cost(run: Step, builder: Builder) -> QueryCost | None:
    steps = {step.digest: step for step in _behind(run, _SCORING)}
    artifacts = [builder.find(step) for step in steps.values()]
    found = [artifact for artifact in artifacts if artifact is not None]
    weights = {step.digest: step for step in _behind(run, _READ) if step.kind not in _READ}
    sizes = [_weights(artifact) for s in weights.values() if (artifact := builder.find(s))]
    asked = sum(int(artifact.counts.get("requests", 0)) for artifact in found)
    queries = next((int(a.counts["rows"]) for a in found if a.counts.get("rows")), 0)
    if run.kind != "run" or len(found) < len(artifacts) or not queries or not (sum(sizes) or asked):
        return None
    return QueryCost(
        milliseconds=1000 * sum(float(a.manifest.get("seconds", 0)) for a in found) / queries,
        pairs=sum(int(a.counts.get("pairs", 0)) for a in found) / queries,
        requests=asked / queries,
        weights=sum(sizes),
    )


def _behind(step: Step, kinds: Sequence[str]) -> Iterator[Step]:
    """The step, and the inputs that are reached through steps of these kinds, those of other kinds
    at the ends among them where embeddings are followed."""
    yield step
    if step.kind in kinds:
        for below in {**step.inputs(), **step.needs()}.values():
            if below.kind in kinds or "embeddings" in kinds:
                yield from _behind(below, kinds)


def _weights(artifact: Artifact) -> int:
    """Bytes of the files with weights."""
    files = artifact.manifest["files"].items()
    return sum(int(facts["size"]) for name, facts in files if name.endswith(_WEIGHTS))
