"""Claims: two jobs of one cluster make an artifact once; a dead holder blocks nobody."""

from __future__ import annotations

import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from raypipe.storage import claims
from raypipe.storage.claims import Claims, Registry

JOB = """\
import pathlib, sys, time
from dataclasses import dataclass
import ray
from raypipe.storage.builder import Builder
from raypipe.storage.artifacts import Step, Store
from raypipe.storage.claims import Claims

address, folder, me = sys.argv[1:]
here = pathlib.Path(folder)

@dataclass(frozen=True)
class Slow(Step):
    kind = "slow"
    name = "slow"

    def run(self, attempt, context):
        (here / f"made-by-{me}").touch()
        until = time.monotonic() + 60
        while not list(here.glob("waiting-*")):  # the other job has asked for it too
            assert time.monotonic() < until, "nobody else came"
            time.sleep(0.05)
        with attempt.open("value.txt") as out:
            out.write(b"made by " + me.encode())
        return {}

ray.init(address=address, logging_level="ERROR")
store = Store(str(here / "storage"))
wait = Claims(lambda line: (here / f"waiting-{me}").touch())
builder = Builder(store, claim=wait)
artifact = builder.get(Slow())
print((artifact.local() / "value.txt").read_text(), len(builder.made))
"""


@pytest.mark.ray
def test_two_jobs_that_want_the_same_artifact_make_it_once(cluster, tmp_path):
    import ray

    address = ray.get_runtime_context().gcs_address
    script = tmp_path / "job.py"
    script.write_text(JOB)
    jobs = [
        subprocess.Popen(
            [sys.executable, str(script), address, str(tmp_path), name],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    said = sorted(job.communicate(timeout=120)[0].strip().splitlines()[-1] for job in jobs)
    assert [job.returncode for job in jobs] == [0, 0]
    (maker,) = (path.name.removeprefix("made-by-") for path in tmp_path.glob("made-by-*"))
    assert said == [f"made by {maker} 0", f"made by {maker} 1"]
    (waiter,) = tmp_path.glob("waiting-*")
    assert not waiter.name.endswith(maker)


def test_a_claim_is_held_renewed_and_released(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    registry = Registry()
    assert registry.claim("a", "one", 10)
    assert not registry.claim("a", "two", 10)
    assert registry.claim("b", "two", 10)
    now[0] = 109
    assert registry.claim("a", "one", 10)  # renewed until 119
    now[0] = 118
    assert not registry.claim("a", "two", 10)
    registry.release("a", "two")  # not its own
    assert not registry.claim("a", "two", 10)
    registry.release("a", "one")
    assert registry.claim("a", "two", 10)


def test_the_lease_of_a_dead_holder_ends(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    registry = Registry()
    assert registry.claim("a", "dead", 10)
    now[0] = 110.5
    assert registry.claim("a", "alive", 10)
    assert not registry.claim("a", "dead", 10)


class Local(Claims):
    """Claims whose registry lives in this process."""

    def __init__(self, registry: Registry, said: list[str], lease: float = 0.2) -> None:
        super().__init__(said.append, lease)
        self.registry = registry

    def _call(self, verb, *args):
        return getattr(self.registry, verb)(*args)


def test_a_waiter_goes_on_when_the_artifact_stands():
    registry, said = Registry(), []
    with Local(registry, [], lease=60)("a", lambda: False):  # a busy machine renews late
        with Local(registry, said)("a", lambda: len(said) == 1):
            assert said == ["waiting for another job that makes a"]
        assert not registry.claim("a", "third", 1)  # the holder still has it


def test_a_holder_renews_its_lease(monkeypatch):
    registry, renewed = Registry(), []
    monkeypatch.setattr(
        registry, "claim", lambda *args: renewed.append(args) or Registry.claim(registry, *args)
    )
    with Local(registry, [])("a", lambda: False):
        until = time.monotonic() + 30
        while len(renewed) < 3 and time.monotonic() < until:
            time.sleep(0.01)
    assert len(renewed) >= 3
    assert registry.claim("a", "another", 1)  # and released it


def test_another_process_is_another_owner():
    import pickle

    mine = Claims(print)
    assert pickle.loads(pickle.dumps(mine))._owner != mine._owner
    assert claims.LEASE_S >= 10  # a busy driver must not lose its claim


class Failing(Registry):
    """Its n-th call fails, as one to a busy cluster does."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures, self.calls = failures, 0

    def claim(self, key, owner, lease):
        self.calls += 1
        if 1 < self.calls <= 1 + self.failures:
            raise TimeoutError("busy")
        return super().claim(key, owner, lease)


def until(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_renewal_that_fails_is_tried_again_within_the_lease():
    registry, said = Failing(3), []
    waiter = Local(registry, said)
    with waiter("a", lambda: False):
        until(lambda: registry.calls >= 7)
        assert not Registry.claim(registry, "a", "another", 1)
    assert said == [] and waiter.lost == []


def test_a_lost_claim_is_said_once_and_counted():
    registry, said = Registry(), []
    holder = Local(registry, said)
    with holder("a", lambda: False):
        registry._held["a"] = ("another", time.monotonic() + 60)
        until(lambda: said)
    assert holder.lost == ["a"] and len(said) == 1
    assert "another job took the claim on a" in said[0] and "committed first" in said[0]
    assert not registry.claim("a", "third", 1)  # the other job's claim was not released


class Killed:
    """A handle of an actor that is dead, or of its successor."""

    def __init__(self, registry) -> None:
        self.registry = registry

    def __getattr__(self, verb):
        return SimpleNamespace(remote=lambda *args: (self.registry, verb, args))


def test_a_killed_registry_has_a_successor(monkeypatch):
    import ray

    registry = Registry()
    handles = [Killed(None), Killed(registry)]

    def get(call):
        there, verb, args = call
        if there is None:
            raise ray.exceptions.RayActorError
        return getattr(there, verb)(*args)

    monkeypatch.setattr(ray, "get", get)
    mine = Claims(print)
    monkeypatch.setattr(
        Claims,
        "_registry",
        lambda self: handles[0] if len(handles) == 1 else handles.pop(0),
    )
    with mine("a", lambda: False):
        assert not registry.claim("a", "another", 1)
    assert registry.claim("a", "another", 1)


@pytest.mark.parametrize("error", [TimeoutError("busy"), ConnectionError("gone"), ValueError("b")])
def test_a_cluster_that_cannot_answer_costs_only_the_claim(monkeypatch, error):
    def failing(*_):
        raise error

    mine, done = Claims(print), []
    monkeypatch.setattr(Claims, "_registry", failing)
    with mine("a", lambda: False):
        done.append("work")
    assert done == ["work"]
