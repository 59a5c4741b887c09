"""From configuration to Ray resources: the cluster, actor pools, training workers."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field, model_validator

from raypipe.config import Config, ConfigError
from raypipe.interrupts import sigterm_kept

NO_FP16 = (
    "precision: fp16 needs a GPU (on CPU it is 10 times slower than bf16 or fp32); use bf16 or fp32"
)

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
    """Train and score on GPUs. None does so if the cluster has GPUs now; true makes an autoscaling
    cluster start some."""
    gpus_per_worker: float = Field(1.0, gt=0, le=1)
    """Share of a GPU per training worker and per scoring actor: at 0.25 four small trials train on
    one card at once. Workers of one stage cannot share a card."""
    actors: int | None = Field(None, ge=1)
    """The most actors of a data job; None takes as many as the cluster holds."""
    micro_batch_tokens: int | None = Field(None, ge=64)
    """Tokens whose activations are in memory at a time, in training and scoring. None is 4,096 on
    CPU (two MiniLM trainings in 8 GB) and 32,768 on GPU. A stage whose model has dropout is trained
    with its own `dropout_tokens` instead."""
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


def connect(resources: Resources, storage_is_local: bool, shared: bool) -> None:
    """Join the cluster of RAY_ADDRESS or of this machine, or start one here.

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
    import ray

    if not ray.is_initialized():
        _listen_on_loopback()
        os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # it prints every line twice
        variables = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        for name in (
            *("RAYPIPE_HOME", "RAYPIPE_CACHE_GB", "RAYPIPE_ALLOW_ENV"),
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
    from ray._common.utils import get_ray_address_file

    address = os.environ.get("RAY_ADDRESS", "")
    return address == "local" or (not address and not os.path.exists(get_ray_address_file(None)))


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
        with sigterm_kept():
            return ray.init(
                logging_level=logging.WARNING,
                dashboard_port=port,
                runtime_env={"env_vars": dict(env)},
            )

    if os.environ.get("RAY_ADDRESS", "") not in ("", "local"):
        start(variables, None)
        return
    with _one_start_at_a_time():
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
def _one_start_at_a_time() -> Iterator[None]:
    """Two jobs that start at once would give both dashboards the port that they find free."""
    import fcntl

    with contextlib.ExitStack() as opened:
        with contextlib.suppress(OSError):  # a disk without locks only risks that
            path = Path(tempfile.gettempdir(), f"raypipe-start-{os.getuid()}.lock")
            fcntl.flock(opened.enter_context(path.open("w")), fcntl.LOCK_EX)
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
    job: str = ""
    """The job's id; a manifest with this id is of an artifact that the job made itself."""

    def facts(self) -> dict[str, Any]:
        """What manifests say of job and resources; the device only if a cluster is there."""
        names = ("workers", "strategy", "cpus_per_worker", "actors", "micro_batch_tokens")
        facts = {name: getattr(self.resources, name) for name in names}
        facts |= {"precision": self.precision} | ({"job": self.job} if self.job else {})
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():
            facts |= {"device": self.device(), "micro_batch_tokens": self.micro_batch_tokens()}
        return facts

    def device(self) -> str:
        """ "cuda" where models run on GPUs, "cpu" otherwise."""
        return "cuda" if self.resources.use_gpu() else "cpu"

    def micro_batch_tokens(self) -> int:
        """Tokens whose activations are in memory at a time."""
        gpu = self.device() == "cuda"
        return self.resources.micro_batch_tokens or (32_768 if gpu else 4_096)

    def batch_tokens(self) -> int:
        """Padded tokens per forward pass of scoring: what fits on a GPU, or in a CPU's cache."""
        budget = self.micro_batch_tokens()
        return budget if self.device() == "cuda" else min(budget, 2_048)
