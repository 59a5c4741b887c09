"""What a query took, from the manifests of the runs and of what they were made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from raypipe.storage.artifacts import Step
from raypipe.sweep.query_cost import query_cost


@dataclass(frozen=True)
class Part(Step):
    """A step of a kind, with what its manifest would say."""

    kind: str  # type: ignore[misc]
    label: str
    manifest: Mapping[str, Any] = field(compare=False)
    parts: tuple[Part, ...] = ()

    @property
    def name(self) -> str:
        return self.label

    def spec(self) -> Mapping[str, Any]:
        return {"label": self.label}

    def inputs(self) -> Mapping[str, Step]:
        return {part.label: part for part in self.parts}


class Standing:
    """A builder in whose storage everything stands but what is gone."""

    def __init__(self, *gone: str) -> None:
        self.gone = gone

    def find(self, step: Part) -> Any:
        counts = step.manifest.get("counts", {})
        found = SimpleNamespace(manifest={"files": {}, **step.manifest}, counts=counts)
        return None if step.label in self.gone else found


FILES = {"model.safetensors": {"size": 90_000_000}, "vocab.txt": {"size": 5}}
BACKBONE = Part("backbone", "backbone", {"files": FILES, "seconds": 1000})
TRAINED = Part("checkpoint", "trained", {"files": FILES, "seconds": 1000}, (BACKBONE,))
LISTS = Part("candidates", "lists", {"seconds": 50, "counts": {"rows": 100}})
RUN = Part("run", "run", {"seconds": 2.0, "counts": {"rows": 100, "pairs": 5000}}, (TRAINED, LISTS))


def cost(*runs: Part, gone: tuple[str, ...] = ()) -> Any:
    steps = [SimpleNamespace(run_step=run) for run in runs]
    return query_cost(steps, Standing(*gone))  # type: ignore[arg-type]


def test_a_models_run():
    found = cost(RUN)
    assert (found.milliseconds, found.pairs, found.requests) == (20.0, 50.0, 0.0)
    assert found.weights == 90_000_000  # of what scored, not of what it was trained from


def test_seeds_are_a_mean():
    slow = Part("run", "slow", {"seconds": 4.0, "counts": {"rows": 100, "pairs": 5000}}, RUN.parts)
    assert cost(RUN, slow).milliseconds == 30.0 and cost(RUN, slow).pairs == 50.0


def test_a_mix_costs_its_runs_and_vectors_weigh_what_their_model_weighs():
    vectors = Part("embeddings", "vectors", {"seconds": 900}, (BACKBONE,))
    values = Part("teacher", "values", {"seconds": 1.0}, (vectors, LISTS))
    mix = Part("run", "mix", {"seconds": 1.0, "counts": {"rows": 100}}, (RUN, values, LISTS))
    found = cost(mix)
    assert (found.milliseconds, found.pairs, found.weights) == (40.0, 50.0, 180_000_000)


def test_a_language_models_requests():
    asked = Part("teacher", "asked", {"seconds": 98.0, "counts": {"requests": 700, "rows": 100}})
    run = Part("run", "judged", {"seconds": 2.0, "counts": {"rows": 100}}, (asked, LISTS))
    found = cost(run)
    assert (found.milliseconds, found.requests, found.weights) == (1000.0, 7.0, 0)


@pytest.mark.parametrize("gone", ["run", "values"])
def test_a_cost_of_which_a_part_is_gone_is_not_known(gone):
    values = Part("teacher", "values", {"seconds": 1.0}, (BACKBONE,))
    mix = Part("run", "mix", {"seconds": 1.0, "counts": {"rows": 100}}, (RUN, values))
    assert cost(mix, gone=(gone,)) is None


def test_lists_and_judgements_cost_no_model():
    oracle = Part("run", "oracle", {"seconds": 1.0, "counts": {"rows": 100}}, (LISTS,))
    assert cost(LISTS) is None and cost(oracle) is None
