"""cluster.yaml by Ray's own schema and defaults, and the promises that its comments make."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "cluster.yaml").read_text("utf-8")
TOKEN_FILE = "/home/ray/.ray/auth_token"


@pytest.fixture
def cluster() -> dict:
    return yaml.safe_load(TEXT)


def test_ray_accepts_it(cluster):
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(cluster))
    validate_config(prepared)
    assert prepared["available_node_types"]["head"]["max_workers"] == 0
    cluster["file_mount"] = {}
    with pytest.raises(Exception, match="file_mount"):
        validate_config(prepare_config(cluster))


def test_every_node_asks_for_the_token_and_has_it(cluster):
    assert "--env RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert cluster["file_mounts"][TOKEN_FILE] == "~/.ray/auth_token"
    assert "ray get-auth-token --generate" in TEXT
    for commands in (cluster["head_start_ray_commands"], cluster["worker_start_ray_commands"]):
        assert not any("RAY_AUTH" in command for command in commands)


def test_the_command_that_makes_the_token_exists():
    from click.testing import CliRunner
    from ray.scripts.scripts import cli

    shown = CliRunner().invoke(cli, ["get-auth-token", "--help"]).output
    assert "--generate" in shown
    assert "~/.ray/auth_token" in shown


def test_the_dashboard_is_not_open_to_the_network(cluster):
    (start,) = (c for c in cluster["head_start_ray_commands"] if "ray start" in c)
    assert "--dashboard-host=127.0.0.1" in start


def test_head_has_cpus_and_workers_start_from_zero(cluster):
    kinds = dict(cluster["available_node_types"])
    head = kinds.pop(cluster["head_node_type"])
    assert head["resources"]["CPU"] >= 4
    assert "GPU" not in head["resources"]
    assert all(kind["min_workers"] == 0 < kind["max_workers"] for kind in kinds.values())
    assert sum(kind["max_workers"] for kind in kinds.values()) <= cluster["max_workers"]
    gpu = [kind for kind in kinds.values() if kind["resources"].get("GPU")]
    assert gpu
    assert len(gpu) < len(kinds)


def test_nodes_install_this_checkout_with_the_pinned_ray(cluster):
    (install,) = (c for c in cluster["setup_commands"] if "pip install" in c)
    assert "-c constraints.txt" in install
    assert cluster["file_mounts"]["/home/ray/raypipe"] == "."
    pins = (ROOT / "constraints.txt").read_text("utf-8")
    ray = re.search(r"^ray==(\S+)$", pins, re.MULTILINE)
    image = re.fullmatch(r"rayproject/ray:([\d.]+)-py311", cluster["docker"]["image"])
    assert ray
    assert image
    assert ray[1] == image[1]


def test_it_names_shared_storage():
    assert "storage=s3://" in TEXT
    assert "RAYPIPE_HOME=" in TEXT
