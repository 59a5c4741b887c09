"""A mining job that ends before it needs Ray: what it makes is what Ray's processes would make."""

from __future__ import annotations

import json

import pytest

from raypipe.candidates.bm25 import source, terms
from raypipe.commands import mine
from raypipe.commands.mine import does_without_ray, plan_of, run, steps_of
from raypipe.datasets import text_hashes
from raypipe.groups import negatives
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.resources import Resources
from raypipe.sweep.counters import steps_behind


@pytest.fixture
def small(tmp_path, beir_folder, tiny_backbone):
    """Gives a recipe that runs no model in mining, with more fields, and a storage of its own."""

    def write(name: str, **fields: object) -> Experiment:
        sets = {
            role: {"dataset": f"beir:{beir_folder}", "split": role}
            for role in ("train", "validation", "test")
        }
        recipe = {
            "name": "small",
            "data": sets,
            "candidates": {"type": "bm25", "depth": 20},
            "groups": {
                "negatives": {"type": "random_window", "count": 3, "low": 1, "high": 20},
                "filters": [{"type": "near_duplicate"}],
            },
            "model": {"backbone": str(tiny_backbone)},
            "stages": {"contrastive": {"loss": {"type": "infonce"}}},
            "evaluation": {"depth": 10, "validation_depth": 10},
            "precision": "fp32",
            "storage": str(tmp_path / name),
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps(recipe | fields))
        return load(Experiment, path)

    return write


@pytest.fixture
def late(monkeypatch):
    """As if no Ray ran in this process; the job must not start one."""

    def no_ray(*_: object, **__: object) -> None:
        pytest.fail("Ray was started")

    monkeypatch.setattr(mine, "may_start_late", lambda resources: True)
    monkeypatch.setattr(mine, "connect", no_ray)
    monkeypatch.setattr(mine, "expect_ray", no_ray)


def every_artifact(experiment: Experiment) -> dict[str, tuple[list[dict], dict]]:
    """Of every step and all behind it, by its path: names, sizes and checksums of files; counts."""
    steps, builder = plan_of(experiment)
    every = [*steps.values(), *(step for _, step in steps_behind(steps))]
    found = {step.path: builder.find(step) for step in every}
    assert all(artifact is not None for artifact in found.values())
    return {path: (one.manifest["files"], dict(one.counts)) for path, one in found.items()}


def test_a_small_job_ends_without_ray(small, late):
    experiment = small("here")
    said: list[str] = []
    mined = run(experiment, said.append)
    assert mined.artifacts["groups of contrastive"].counts["groups"] == 36
    kinds = {path.split("/")[0] for path in every_artifact(experiment)}
    assert kinds >= {"bm25_terms", "bm25_index", "candidates", "text_hashes", "negatives", "groups"}
    again = run(experiment, said.append)
    uris = {name: artifact.uri for name, artifact in mined.artifacts.items()}
    assert {name: artifact.uri for name, artifact in again.artifacts.items()} == uris


@pytest.mark.ray
def test_it_makes_the_bytes_that_rays_processes_make(small, cluster, request, monkeypatch):
    """In several chunks, so that actor pools make them on Ray."""
    for module, rows in ((terms, 50), (source, 7), (text_hashes, 50), (negatives, 7)):
        monkeypatch.setattr(module, "CHUNK", rows)
    by_ray = small("by-ray")
    run(by_ray, lambda line: None)  # a Ray runs in this process
    request.getfixturevalue("late")
    here = small("here")
    run(here, lambda line: None)
    made = every_artifact(here)
    assert made == every_artifact(by_ray)
    assert max(len(files) for files, _ in made.values()) > 5


def kinds_behind(experiment: Experiment) -> bool:
    steps = steps_of(experiment)
    every = [*steps.values(), *(step for _, step in steps_behind(steps))]
    return does_without_ray(every, experiment.resources)


@pytest.mark.parametrize(
    ("fields", "without"),
    [
        ({}, True),
        ({"candidates": {"type": "bm25", "depth": 20, "shard_docs": 7}}, True),
        ({"teacher": {"type": "fusion", "max_length": 32}}, False),
        ({"candidates": {"type": "dense", "depth": 20}}, False),
    ],
)
def test_a_job_with_a_model_starts_ray_at_once(small, tiny_backbone, late, fields, without):
    for part in fields.values():
        if part["type"] != "bm25":
            part["backbone"] = str(tiny_backbone)
    assert kinds_behind(small("asked", **fields)) is without


def test_steps_of_others_are_made_on_ray(small, late, monkeypatch):
    steps = list(steps_of(small("own")).values())
    assert does_without_ray(steps, Resources())
    monkeypatch.setattr(type(steps[0]), "__module__", "mypackage.steps")
    assert not does_without_ray(steps, Resources())
