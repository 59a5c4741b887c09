"""The Ray that a job starts: its processes find it, whatever else runs on the machine."""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace

import pytest

from raypipe.resources import _dashboard_port, _init


@pytest.mark.ray
def test_processes_know_their_own_ray(cluster):
    """Train's cleaner asks the dashboard; of two Rays on a machine it would find neither."""
    import ray

    @ray.remote(num_cpus=0)
    def asked() -> tuple[str, list[str]]:
        from ray.util.state import list_nodes

        return os.environ["RAY_API_SERVER_ADDRESS"], [node.node_id for node in list_nodes()]

    address, nodes = ray.get(asked.remote())
    assert address.startswith("http://127.0.0.1:")
    assert nodes == [node["NodeID"] for node in ray.nodes()]


def test_a_taken_port_is_not_chosen():
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", 8265))
        except OSError:  # a Ray of somebody else has it
            assert _dashboard_port() != 8265
            return
        assert _dashboard_port() not in (0, 8265)
    assert _dashboard_port() == 8265


@pytest.mark.parametrize(
    ("taken", "knows"),
    [
        (lambda port: None, "http://127.0.0.1:{0}"),
        # two jobs found the same port free; Ray gave this one the next
        (lambda port: 8266 if port == 8265 else None, "http://127.0.0.1:{1}"),
        (lambda port: 9000, None),  # a Ray that runs here is joined, whatever is asked for
    ],
    ids=["alone", "at the same time", "joined"],
)
def test_the_address_is_that_of_the_ray_that_started(monkeypatch, taken, knows):
    ports, env, running = [], [], []

    def init(*, dashboard_port, runtime_env, **_):
        assert running == []
        running.append(True)
        env.append(runtime_env["env_vars"])
        if dashboard_port is None:
            return SimpleNamespace(dashboard_url="127.0.0.1:9000")
        ports.append(dashboard_port)
        return SimpleNamespace(dashboard_url=f"127.0.0.1:{taken(dashboard_port) or dashboard_port}")

    free = iter([8265, 40001, 40002])
    monkeypatch.setattr("raypipe.resources._dashboard_port", lambda wanted: next(free))
    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", running.clear)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    _init({"A": "b"})
    assert running == [True] and all(one["A"] == "b" for one in env)
    expected = None if knows is None else knows.format(*ports)
    assert env[-1].get("RAY_API_SERVER_ADDRESS") == expected
    assert ports == [8265, 40001][: len(ports)]
