"""From configuration to Ray resources: the cluster, actor pools, training workers."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field, model_validator

from raypipe.config import Config, ConfigError
from raypipe.forks import end_server, forked_workers, import_ahead
from raypipe.interrupts import sigterm_kept

NO_FP16 = (
    "precision: fp16 needs a GPU (on CPU it is 10 times slower than bf16 or fp32); use bf16 or fp32"
)
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
GPU_TOKENS = 32_768
"""Tokens at a time on a GPU where nothing is measured: scoring is no faster with more."""
_ROUNDING = 1e-9
"""1 / .1 is a little below 10."""


class Resources(Config):
    """How much of the cluster one step uses. No field is in a digest, or changes a result beyond
    rounding; but where a model has dropout, every training worker draws its own, so that another
    number of workers is like another seed."""

    workers: int = Field(1, ge=1)
    """Training workers per stage (data parallel); each holds one model."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """How a stage's workers share the model. ddp: each holds all of it. fsdp (FSDP2): each holds a
    part of weights, gradients and moments, for backbones that do not fit; it costs a third more."""
    cpus_per_worker: float | None = Field(None, gt=0)
    """CPUs per training worker, and its threads where it trains on CPU. None shares the cluster's
    CPUs among the trials: two workers of one thread do more than one worker of two threads."""
    gpu: bool | None = None
    """Train and score on GPUs. None does so if the cluster has GPUs when a step begins, and a job
    says so where none is alive yet; true waits for GPUs, which an autoscaling cluster starts."""
    gpus_per_worker: float = Field(1.0, gt=0, le=1)
    """Share of a GPU per training worker and per scoring actor: at 0.25 four small trials train on
    one card at once. Workers of one stage cannot share a card."""
    actors: int | None = Field(None, ge=1)
    """The most actors of a data job; None takes as many as the cluster holds."""
    micro_batch_tokens: int | None = Field(None, ge=64)
    """Tokens whose activations are in memory at a time, in training and scoring. None is 4,096 on
    CPU (two MiniLM trainings in 8 GB); on a GPU 32,768 in scoring, and in training what its free
    memory holds, up to 131,072. Where a GPU is out of memory, the number is halved and the step
    done again. A stage whose model has dropout is trained with its own `dropout_tokens` instead."""
    price_per_device_hour: float | None = Field(None, ge=0)
    """The price of a GPU, or of a CPU worker without GPUs: device seconds become a tracked cost."""
    worker_failures: int = Field(1, ge=0)
    """How often a stage's workers are started again after the death of one. They go on from the
    stage's last checkpoint, as the same command does after the death of the driver."""

    @model_validator(mode="after")
    def _own_cards(self) -> Resources:
        if self.workers > 1 and self.gpus_per_worker < 1:
            raise ValueError(
                f"gpus_per_worker: {self.gpus_per_worker:g} of a card for each of "
                f"{self.workers} workers, but NCCL joins no two of one card; use workers=1, or "
                "whole cards"
            )
        return self

    def use_gpu(self) -> bool:
        """Whether models run on GPUs in this cluster."""
        import ray

        there = ray.cluster_resources().get("GPU", 0) > 0
        return there if self.gpu is None else self.gpu

    def check_precision(self, precision: str) -> None:
        """Refuse fp16 where models run on CPUs for certain; else only the cluster tells.

        Raises:
            ConfigError: fp16 without a GPU.
        """
        import torch

        if precision == "fp16" and (
            self.gpu is False
            or (self.gpu is None and not torch.cuda.is_available() and _starts_here())
        ):
            raise ConfigError(NO_FP16)

    def for_trials(self, trials: int) -> Resources:
        """A copy whose `cpus_per_worker` is set for that many trials at once."""
        if self.cpus_per_worker is not None:
            return self
        import ray

        node = max(n["Resources"].get("CPU", 1) for n in ray.nodes() if n["Alive"])
        shared = int(ray.cluster_resources().get("CPU", 1) / (max(trials, 1) * self.workers))
        return self.replace(cpus_per_worker=max(min(shared, int(node)), 1))

    def slots(self) -> int:
        """How many stages can train at the same time; call `for_trials` first."""
        import ray

        assert self.cpus_per_worker is not None, "settled by for_trials"
        total = ray.cluster_resources()
        per_stage, gpus = self.workers * self.cpus_per_worker, self.workers * self.gpus_per_worker
        fit = int(total.get("CPU", 1) / per_stage)
        if self.use_gpu() and "GPU" in total:  # else the autoscaler has not started GPUs yet
            fit = min(fit, int(total["GPU"] / self.gpus_per_worker / self.workers + _ROUNDING))
        if fit < 1:
            raise ConfigError(
                f"resources: one stage needs {per_stage:g} CPUs"
                f"{f' and {gpus:g} GPUs' if self.use_gpu() else ''}, the cluster has "
                f"{total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs; lower "
                "resources.workers or resources.cpus_per_worker"
            )
        return fit

    def pool(self, chunks: int, *, model: bool) -> tuple[Any, dict[str, float]]:
        """An actor pool for a Ray Data job of `chunks` chunks, and what each actor asks for."""
        import ray

        gpu = model and self.use_gpu()
        total = ray.cluster_resources()
        share = self.gpus_per_worker
        fit = int(total.get("GPU", 1) / share + _ROUNDING) if gpu else int(total.get("CPU", 1))
        most = max(min(chunks, self.actors or fit), 1)
        ask = {"num_gpus": share} if gpu else {"num_cpus": 1.0}
        return ray.data.ActorPoolStrategy(min_size=1, max_size=most), ask


def default_precision() -> Literal["bf16", "fp32"]:
    """What `precision: auto` becomes: a property of the machine, never of its load.

    A CPU without bf16 products emulates them, 68 times slower than fp32 (measured, AVX2). A cluster
    is assumed to have GPUs, because the driver's processor says nothing of the other nodes.
    """
    import torch

    if os.environ.get("RAY_ADDRESS", "") not in ("", "local") or torch.cuda.is_available():
        return "bf16"
    bf16_products = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return "bf16" if any(getattr(torch.cpu, name, bool)() for name in bf16_products) else "fp32"


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
    return not started and resources.gpu is not True and _starts_here()


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

    if _starts_here():
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # for the processes that it starts
        ray_constants.ENABLE_RAY_CLUSTER = False  # read from there when Ray was imported


def _starts_here() -> bool:
    """Whether a job starts a Ray of its own on this machine."""
    address = os.environ.get("RAY_ADDRESS", "")
    return address == "local" or (not address and not _address_file().exists())


def _address_file() -> Path:
    """Where `ray start` leaves the address of its cluster: Ray's `get_ray_address_file`, for whose
    import a job would wait a second."""
    folder = os.environ.get("RAY_TMPDIR")
    if folder is None and sys.platform.startswith("linux"):
        folder = os.environ.get("TMPDIR")
    usual = "/tmp" if sys.platform.startswith(("linux", "darwin")) else tempfile.gettempdir()
    return Path(usual if folder is None else folder, "ray", "ray_current_cluster")


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


class CancelledWorkError(Exception):
    """Nobody waits any more for what a slot does."""


class SlotWork(Protocol):
    """Picklable work for the processes of a training slot."""

    def run(self, rank: int, world: int, tell: Callable[[dict[str, Any]], bool]) -> Any:
        """One worker's share; what it returns is pickled.

        Args:
            tell: reports to the work's caller; false when nobody waits for it any more.

        Raises:
            CancelledWorkError: after such an answer.
        """
        ...


class TrainingSlots(Protocol):
    """Processes that are kept for the job's trainings; see `stages/slots.py`."""

    @property
    def shared(self) -> bool:
        """Whether trials beside this one use them, so that no CPU is free outside."""
        ...

    def run(
        self,
        work: SlotWork,
        resources: Resources,
        key: str,
        on_report: Callable[[dict[str, Any]], None] = ...,
    ) -> list[Any]:
        """Do work; its results by rank."""
        ...

    def rest(self) -> None:
        """Free the CPUs of processes that have no work."""
        ...


class RayOnDemand:
    """Starts Ray when work first needs it; a small job ends without."""

    def __init__(self, start: Callable[[], None]) -> None:
        self._start: Callable[[], None] | None = start

    @property
    def started(self) -> bool:
        return self._start is None

    def __call__(self) -> None:
        start, self._start = self._start, None
        if start is not None:
            start()


@dataclass(frozen=True)
class Context:
    """What a step's work may use beside its inputs; see `Resources` for what changes no result."""

    resources: Resources
    precision: str = "bf16"
    """The precision of scoring and training; steps that depend on it have it in their digests."""
    progress_bars: bool = True
    on_report: Callable[[str, dict[str, Any]], None] | None = None
    """Called with a stage's digest and each report of the stage's rank 0."""
    slots: TrainingSlots | None = None
    """Where stages are trained; None: each in processes of its own."""
    trial: str = ""
    """The trial that is run, whose name tells its lines from those of other trials; empty outside
    of one."""
    job: str = ""
    """The job's id; a manifest with this id is of an artifact that the job made itself."""
    late: RayOnDemand | None = None
    """None: Ray runs."""

    @property
    def has_ray(self) -> bool:
        """Whether Ray runs. Until then work without a model is begun in this process."""
        return self.late is None or self.late.started

    def need_ray(self) -> None:
        """Start Ray unless it runs."""
        if self.late is not None:
            self.late()

    def facts(self) -> dict[str, Any]:
        """What manifests say of job and resources; the device only if a cluster is there."""
        names = ("workers", "strategy", "cpus_per_worker", "actors", "micro_batch_tokens")
        facts = {name: getattr(self.resources, name) for name in names}
        facts |= {"precision": self.precision} | ({"job": self.job} if self.job else {})
        ray = sys.modules.get("ray")
        if self.has_ray and ray is not None and ray.is_initialized():
            facts |= {"device": self.device(), "micro_batch_tokens": self.micro_batch_tokens()}
        return facts

    def device(self) -> str:
        """ "cuda" where models run on GPUs, "cpu" otherwise; only a cluster knows."""
        self.need_ray()
        return "cuda" if self.resources.use_gpu() else "cpu"

    def micro_batch_tokens(self) -> int:
        """Tokens whose activations are in memory at a time."""
        gpu = self.device() == "cuda"
        return self.resources.micro_batch_tokens or (GPU_TOKENS if gpu else 4_096)

    def batch_tokens(self) -> int:
        """Padded tokens per forward pass of scoring: what fits on a GPU, or in a CPU's cache."""
        budget = self.micro_batch_tokens()
        return budget if self.device() == "cuda" else min(budget, 2_048)
