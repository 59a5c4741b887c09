"""The Ray that a job starts: its processes find it, whatever else runs on the machine."""

from __future__ import annotations

import os
import socket

import pytest

from raypipe.resources import _dashboard_port


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
