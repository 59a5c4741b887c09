"""Several processes of one training, without Ray."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
from collections.abc import Callable
from typing import Any

import torch

LIBRARIES = [
    "tiny_training",
    "pandas",
    "pytest",
    "torch._dynamo",
    "torch.distributed.fsdp",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.bert.modeling_bert",
]
"""What every process needs; to import it takes six seconds of CPU."""


def start(worker: Callable[..., None], arguments: tuple[Any, ...], count: int) -> None:
    """Run `worker(rank, *arguments)` in `count` processes; an error in one is raised here.

    All processes of a test session are forked from one, which has imported the libraries and
    computed nothing.
    """
    multiprocessing.set_forkserver_preload(LIBRARIES)
    torch.multiprocessing.start_processes(
        _run, (worker, arguments), nprocs=count, start_method="forkserver"
    )


def _run(rank: int, worker: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    faulthandler.enable()  # a library that aborts says where, in the test's stderr
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # the forked-from process has an older environment
    torch.set_num_threads(1)
    worker(rank, *arguments)
