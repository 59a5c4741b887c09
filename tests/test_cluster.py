"""The Ray that a job starts: its processes find it, whatever else runs on the machine."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from raypipe.cluster import (
    _dashboard_port,
    _init,
    _late_start_said,
    _leave_out_token_note,
    _listen_on_loopback,
    _one_start_at_a_time,
    _silent_core,
    _without_line,
    connect,
    may_start_late,
)
from raypipe.config import ConfigError
from raypipe.resources import Resources

LEVEL = "RAY_BACKEND_LOG_LEVEL"


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


@pytest.mark.ray
def test_a_local_ray_listens_on_loopback_alone(cluster):
    """Its workers, agents and dashboard, with an actor at work; the driver, too."""
    import psutil
    import ray

    @ray.remote(num_cpus=0)
    class Idle:
        def there(self) -> bool:
            return True

    idle = Idle.remote()
    assert ray.get(idle.there.remote())
    me = psutil.Process()
    processes = [me, *me.children(recursive=True)]
    connections = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # ended since it was listed
            connections.extend(process.net_connections("inet"))
    listening = [
        (each.laddr.ip.removeprefix("::ffff:"), each.laddr.port)
        for each in connections
        if each.status == psutil.CONN_LISTEN
    ]
    assert len(listening) > 8
    assert [place for place in listening if not place[0].startswith("127.")] == []
    assert ray.nodes()[0]["NodeManagerAddress"] == "127.0.0.1"


@pytest.mark.ray
def test_the_token_of_rays_doors_is_its_owners(cluster):
    token = Path.home() / ".ray" / "auth_token"
    if os.environ.get("RAY_AUTH_MODE") != "token" or not token.exists():
        pytest.skip("this Ray has no token")
    assert token.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("own", [None, "debug"])
def test_the_core_of_this_process_says_only_what_is_fatal(monkeypatch, own):
    """Ray's other processes, and those that start later, log as ever."""
    from ray._private import worker

    levels: list[str | None] = []
    monkeypatch.setattr(worker, "connect", lambda: levels.append(os.environ.get(LEVEL)))
    usual = worker.connect
    monkeypatch.delenv(LEVEL, raising=False)
    if own is not None:
        monkeypatch.setenv(LEVEL, own)
    with _silent_core():
        assert os.environ.get(LEVEL) == own  # as Ray's processes get it, which start before
        worker.connect()
    assert levels == [own or "fatal"]
    assert os.environ.get(LEVEL) == own and worker.connect is usual


def test_a_line_of_c_is_left_out_and_others_come_late(capfd):
    with _without_line("LOG_LEVEL"):
        os.write(2, b"set from RAY_BACKEND_LOG_LEVEL\nan error\n")
        assert capfd.readouterr().err == ""
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "an error\nafter\n"


def test_a_ray_that_gives_up_starting_is_one_sentence():
    late = Exception("The current node timed out during startup. This could happen")
    with pytest.raises(ConfigError, match="Ray did not start in time: other"), _late_start_said():
        raise late
    with pytest.raises(OSError, match="no port is free"), _late_start_said():
        raise OSError("no port is free")


def test_rays_note_of_a_token_is_left_out_and_its_warning_of_none_stays():
    from ray._private.authentication import authentication_token_setup as setup

    heard: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: heard.append(record.getMessage())
    setup.logger.addHandler(listener)
    try:
        _leave_out_token_note()
        setup._warn_token_auth_enabled()
        setup._warn_token_auth_disabled()
    finally:
        setup.logger.removeHandler(listener)
    assert [line.split(" for ")[0] for line in heard] == ["Token authentication is disabled"]


@pytest.mark.parametrize(
    ("address", "left", "loopback"),
    [
        *(("local", False, True), ("local", True, True), ("", False, True)),
        *(("", True, False), ("auto", False, False), ("10.0.0.1:6379", False, False)),
    ],
)
def test_a_cluster_is_joined_as_it_is(monkeypatch, tmp_path, address, left, loopback):
    from ray._private import ray_constants

    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setenv(name := "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "1")
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    (tmp_path / "ray").mkdir()
    if left:  # by `ray start`
        (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.1:6379")
    _listen_on_loopback()
    assert ray_constants.ENABLE_RAY_CLUSTER is not loopback
    assert os.environ[name] == ("0" if loopback else "1")


def test_no_key_travels_in_rays_runtime_environment(monkeypatch):
    """Ray's agents log it where everybody on the machine reads."""
    sent: dict[str, str] = {}
    nodes = [{"Alive": True, "Resources": {"CPU": 2}}]
    for name in ("MLFLOW_TRACKING_URI", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "hush")
    monkeypatch.setenv("RAYPIPE_ALLOW_ENV", "MY_KEY")
    monkeypatch.setenv("RAYPIPE_ALLOW_PLUGINS", "my_package")
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    monkeypatch.setattr("raypipe.cluster._init", sent.update)
    monkeypatch.setattr("raypipe.cluster._listen_on_loopback", lambda: None)
    connect(Resources(), storage_is_local=True, shared=False)
    assert "hush" not in sent.values() and sent["RAYPIPE_ALLOW_ENV"] == "MY_KEY"
    assert sent["RAYPIPE_ALLOW_PLUGINS"] == "my_package"


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
    monkeypatch.setattr("raypipe.cluster._dashboard_port", lambda wanted: next(free))
    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", running.clear)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    _init({"A": "b"})
    assert running == [True] and all(one["A"] == "b" for one in env)
    expected = None if knows is None else knows.format(*ports)
    assert env[-1].get("RAY_API_SERVER_ADDRESS") == expected
    assert ports == [8265, 40001][: len(ports)]


def test_a_commands_handler_of_sigterm_outlives_the_start_of_ray(monkeypatch):
    import ray

    def init(**options: object) -> None:
        signal.signal(signal.SIGTERM, lambda *_: pytest.fail("Ray's own was called"))

    heard: list[int] = []
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere")
    monkeypatch.setattr(ray, "init", init)
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        _init({})
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


@pytest.mark.parametrize(
    ("address", "gpu", "alive", "told"),
    [
        ("10.0.0.1:6379", None, 0, True),
        ("10.0.0.1:6379", None, 2, False),
        ("10.0.0.1:6379", True, 0, False),
        ("10.0.0.1:6379", False, 0, False),
        ("local", None, 0, False),
    ],
)
def test_a_cluster_whose_gpus_are_not_alive_yet_is_told(monkeypatch, address, gpu, alive, told):
    said: list[str] = []
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2}}])
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2.0, "GPU": float(alive)})
    connect(Resources(gpu=gpu), storage_is_local=False, shared=False, say=said.append)
    assert [("every step that begins looks again" in line) for line in said] == [True] * told


def test_what_is_imported_before_a_fork_leaves_ray_out():
    """Ray's core reads the variables of its process once, when it is imported."""
    code = (
        "import importlib, sys; from raypipe import cluster\n"
        "for name in cluster._MODELS: importlib.import_module(name)\n"
        "print('ray' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False True\n", done.stderr


def test_a_start_that_hangs_holds_up_no_other_for_long(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with _one_start_at_a_time():
        (lock,) = tmp_path.iterdir()
        started = time.monotonic()
        with _one_start_at_a_time(patience=0.3):
            assert time.monotonic() - started >= 0.3
    with lock.open("w") as again:
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it any more


@pytest.mark.parametrize(
    ("address", "left", "gpu", "runs", "late"),
    [
        *(("local", False, None, False, True), ("", False, None, False, True)),
        ("local", False, True, False, False),  # whether there is a GPU is said before work
        ("", True, None, False, False),  # a cluster of this machine is joined
        ("10.0.0.1:6379", False, None, False, False),
        ("local", False, None, True, False),
    ],
)
def test_a_ray_that_would_start_here_may_start_late(
    monkeypatch, tmp_path, address, left, gpu, runs, late
):
    import ray

    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "is_initialized", lambda: runs)
    (tmp_path / "ray").mkdir()
    if left:
        (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.1:6379")
    assert may_start_late(Resources(gpu=gpu)) is late
