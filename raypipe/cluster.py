"""The Ray that a job joins, or starts on this machine, and what its processes are told."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from raypipe.config import ConfigError
from raypipe.forks import end_server, forked_workers, import_ahead
from raypipe.interrupts import sigterm_kept
from raypipe.resources import Resources, starts_here

NO_GPU_YET = (
    "resources.gpu is not set and no GPU of this cluster is alive: models run on CPUs, and every "
    "step that begins looks again; resources.gpu=true waits for GPUs, which an autoscaling cluster "
    "then starts; resources.gpu=false stays on CPUs"
)
_TABLES = ("pyarrow.parquet", "pandas", "aiohttp", "grpc")
"""What every process of Ray imports."""
_MODELS = (
    *(*_TABLES, "torch", "safetensors.torch", "transformers.models.bert.modeling_bert"),
    *("raypipe.recipe.experiment", "raypipe.stages.worker"),
)
"""What runs a model; other families share most of BERT's. Nothing that imports Ray."""


def expect_ray(*, models: bool) -> None:
    """Import what processes of a Ray that will start here need, while the job is being checked.

    Args:
        models: whether they will run models.
    """
    ray = sys.modules.get("ray")
    started = ray is not None and ray.is_initialized()
    if not started and os.environ.get("RAY_ADDRESS", "") in ("", "local"):
        import_ahead(_MODELS if models else _TABLES)


def may_start_late(resources: Resources) -> bool:
    """Whether Ray runs nowhere yet and would start on this machine, where nothing asks for a GPU:
    then a job may begin without it."""
    ray = sys.modules.get("ray")
    started = ray is not None and ray.is_initialized()
    return not started and resources.gpu is not True and starts_here()


def connect(
    resources: Resources,
    storage_is_local: bool,
    shared: bool,
    say: Callable[[str], None] = lambda sentence: None,
) -> None:
    """Join the cluster of RAY_ADDRESS or of this machine, or start one here.

    Args:
        storage_is_local: whether the storage is a directory.
        shared: whether every node sees that directory.
        say: told that the cluster has no GPU yet, where that decides what models run on.

    Raises:
        ConfigError: several nodes, but a storage that only this node sees; or GPUs wanted on one
            machine that has none.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")  # report() waits for it
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # an actor that nobody needs
    # a busy machine needs more than a minute, and what is begun twice may hold its CPUs for ever
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")
    # a process that has imported torch waits a minute for more work: the next costs five seconds
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C ends the job, at once
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # of verbose=0 it prints a box all the same
    import ray

    if not ray.is_initialized():
        _listen_on_loopback()
        _leave_out_token_note()
        os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # it prints every line twice
        variables = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        for name in (
            *("RAYPIPE_HOME", "RAYPIPE_CACHE_GB", "RAYPIPE_ALLOW_ENV"),
            "RAYPIPE_ALLOW_PLUGINS",
            *("IR_DATASETS_HOME", "HF_HOME"),
        ):  # nothing with a key: Ray's agents log these variables where everybody reads
            if name in os.environ:
                variables[name] = os.environ[name]
        _init(variables)
        _close_token()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    alone = len(nodes) == 1 and os.environ.get("RAY_ADDRESS", "") in ("", "local")
    if resources.gpu and alone and ray.cluster_resources().get("GPU", 0) == 0:
        raise ConfigError(
            "resources.gpu: true, but this machine has no GPU that Ray sees; leave that field out"
        )
    if resources.gpu is None and not alone and ray.cluster_resources().get("GPU", 0) == 0:
        say(NO_GPU_YET)
    if len(nodes) > 1 and storage_is_local and not shared:
        raise ConfigError(
            f"the cluster has {len(nodes)} nodes, but storage is a directory of one machine; set "
            "storage=s3://... or another URI, or storage_shared=true if every node mounts it"
        )


def _listen_on_loopback() -> None:
    """Let a Ray that starts here listen on this machine's loopback only; no other node could join.

    A cluster is joined as it is: that of RAY_ADDRESS, or the one that `ray start` left its address
    of on this machine.
    """
    from ray._private import ray_constants

    if starts_here():
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # for the processes that it starts
        ray_constants.ENABLE_RAY_CLUSTER = False  # read from there when Ray was imported


def _leave_out_token_note() -> None:
    """Let Ray not warn in every job that its doors ask for a token; nobody has to do anything.

    Its warning of a cluster without token stays.
    """
    import logging

    setup = "ray._private.authentication.authentication_token_setup"
    logging.getLogger(setup).addFilter(_is_no_token_note)


def _is_no_token_note(record: Any) -> bool:
    return not record.getMessage().startswith("Token authentication is enabled")


def _close_token() -> None:
    """Take the rights of others from the token that Ray's doors ask for."""
    with contextlib.suppress(OSError):
        (Path.home() / ".ray" / "auth_token").chmod(0o600)


def _init(variables: Mapping[str, str]) -> None:
    """Start or join Ray; tell the processes of a Ray that starts here its dashboard's address.

    Train's cleaner of killed trainings asks the dashboard. On a machine with several Rays the
    cleaner does not find its own dashboard, fails, and the resources of a pruned trial are lost.
    """
    import logging

    import ray

    def start(env: Mapping[str, str], port: int | None) -> Any:
        with sigterm_kept(), _silent_core():
            return ray.init(
                logging_level=logging.WARNING,
                dashboard_port=port,
                runtime_env={"env_vars": dict(env)},
            )

    if os.environ.get("RAY_ADDRESS", "") not in ("", "local"):
        end_server()
        start(variables, None)
        return
    with _one_start_at_a_time(), forked_workers(_MODELS), _late_start_said():
        _start_here(start, variables)


def _start_here(start: Callable[..., Any], variables: Mapping[str, str]) -> None:
    """Start Ray on this machine, or join one that runs here."""
    import ray

    seen: Any = object()
    for wanted in (8265, 0, 0):
        port = _dashboard_port(wanted)
        address = f"127.0.0.1:{port}"
        context = start({**variables, "RAY_API_SERVER_ADDRESS": f"http://{address}"}, port)
        if context.dashboard_url == address:
            return
        ray.shutdown()
        if context.dashboard_url == seen:  # twice the same: a Ray of this machine was joined
            break
        seen = context.dashboard_url  # else another job that starts now took the port
    start(variables, None)


@contextlib.contextmanager
def _silent_core() -> Iterator[None]:
    """In the body, connect to Ray with a C++ core that says nothing but what is fatal in this
    process: it writes its errors to the terminal of the job, which asks nothing of anybody. Ray's
    other processes log as ever. RAY_BACKEND_LOG_LEVEL of the user's counts everywhere."""
    from ray._private import worker

    usual, name = worker.connect, "RAY_BACKEND_LOG_LEVEL"

    def connect(*args: Any, **kwargs: Any) -> Any:
        os.environ[name] = "fatal"  # read once, when the core starts
        try:
            with _without_line(name):
                return usual(*args, **kwargs)
        finally:
            del os.environ[name]

    if name in os.environ:
        yield
        return
    worker.connect = connect
    try:
        yield
    finally:
        worker.connect = usual


@contextlib.contextmanager
def _without_line(word: str) -> Iterator[None]:
    """What C++ writes to stderr in the body comes after it, without lines that hold the word."""
    with tempfile.TemporaryFile() as kept:
        usual = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(usual, 2)
            os.close(usual)
            kept.seek(0)
            for line in kept:
                if word.encode() not in line:
                    os.write(2, line)


@contextlib.contextmanager
def _late_start_said() -> Iterator[None]:
    """A sentence where Ray gives up starting, instead of a traceback through Ray.

    Raises:
        ConfigError: it gave up.
    """
    try:
        yield
    except Exception as error:  # Ray raises no other class
        if "timed out during startup" not in str(error):
            raise
        raise ConfigError(
            "Ray did not start in time: other programs leave it too little processor or memory; "
            "run the same command again when they are done. Ray's logs are in "
            "/tmp/ray/session_latest/logs"
        ) from error


@contextlib.contextmanager
def _one_start_at_a_time(patience: float = 60.0) -> Iterator[None]:
    """Two jobs that start at once would give both dashboards the port that they find free.

    A start that hangs must not hold up every later job of this machine, so that after `patience`
    seconds this one starts all the same.
    """
    import fcntl

    with contextlib.ExitStack() as opened:
        with contextlib.suppress(OSError):  # a disk without locks only risks that
            path = Path(tempfile.gettempdir(), f"raypipe-start-{os.getuid()}.lock")
            lock = opened.enter_context(path.open("w"))
            until = time.monotonic() + patience
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        break
                    time.sleep(0.1)
        yield


def _dashboard_port(wanted: int = 8265) -> int:
    """The wanted port if it is free (8265 is where people look for the dashboard), or another."""
    for port in (wanted, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise OSError("no port is free on 127.0.0.1; end programs that listen there")
