"""From configuration to Ray resources: what fits on a machine, and what a step may use."""

from __future__ import annotations

import sys

import pytest
from pydantic import ValidationError

from raypipe.config import ConfigError
from raypipe.resources import Context, RayOnDemand, Resources, _address_file
from raypipe.stages.slots import Shape


@pytest.mark.parametrize(
    ("address", "gpu", "there", "refused"),
    [
        ("local", None, False, True),
        ("local", False, True, True),
        ("local", None, True, False),
        ("local", True, False, False),  # `connect` says that there is none
        ("ray://elsewhere:10001", None, False, False),  # what its nodes have is not known yet
        ("ray://elsewhere:10001", False, False, True),
    ],
)
def test_fp16_without_a_gpu_is_refused_before_work(monkeypatch, address, gpu, there, refused):
    import torch

    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    resources = Resources(gpu=gpu)
    resources.check_precision("bf16")
    if refused:
        with pytest.raises(ConfigError, match="precision: fp16 needs a GPU"):
            resources.check_precision("fp16")
    else:
        resources.check_precision("fp16")


class OneCard:
    """A Ray with 16 CPUs and one GPU."""

    class data:  # noqa: N801 - as ray names it
        ActorPoolStrategy = dict

    @staticmethod
    def cluster_resources() -> dict[str, float]:
        return {"CPU": 16.0, "GPU": 1.0}


@pytest.mark.parametrize(("share", "fit"), [(1.0, 1), (0.5, 2), (0.25, 4), (0.1, 10)])
def test_small_trials_and_actors_share_a_card(monkeypatch, share, fit):
    monkeypatch.setitem(sys.modules, "ray", OneCard)
    resources = Resources(cpus_per_worker=1, gpus_per_worker=share)
    assert resources.slots() == fit
    pool, ask = resources.pool(100, model=True)
    assert (pool["max_size"], ask) == (fit, {"num_gpus": share})
    assert resources.pool(100, model=False)[1] == {"num_cpus": 1.0}
    assert Shape.of(resources) == Shape(1, 1, share)


def test_workers_of_one_stage_have_a_card_each():
    with pytest.raises(ValidationError, match="NCCL joins no two of one card"):
        Resources(workers=2, gpus_per_worker=0.5)


@pytest.mark.parametrize("variables", [{}, {"TMPDIR": "/a"}, {"RAY_TMPDIR": "/b", "TMPDIR": "/a"}])
def test_the_address_that_ray_start_left_is_where_ray_looks(monkeypatch, variables):
    from ray._common.utils import get_ray_address_file

    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name, folder in variables.items():
        monkeypatch.setenv(name, folder)
    assert str(_address_file()) == get_ray_address_file(None)


def test_ray_starts_once_when_it_is_needed(monkeypatch):
    import ray

    monkeypatch.setattr(ray, "cluster_resources", dict)
    starts: list[str] = []
    context = Context(Resources(gpu=False), late=RayOnDemand(lambda: starts.append("start")))
    assert not context.has_ray and not starts
    assert context.device() == "cpu"  # a cluster could have GPUs
    context.need_ray()
    assert context.has_ray and starts == ["start"]
