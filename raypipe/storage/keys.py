"""What was typed as an address, for the other processes of a job: an actor has it in its memory.

So no pickle, file or environment variable has to carry keys to another node. The actor belongs to
the job and dies with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMESPACE = "raypipe"


class Keys:
    """Addresses by their handles; one instance lives in an actor of the job."""

    def __init__(self, typed_by_handle: Mapping[str, str]) -> None:
        self._typed = dict(typed_by_handle)

    def add(self, typed_by_handle: Mapping[str, str]) -> None:
        """Know these, too."""
        self._typed |= typed_by_handle

    def typed(self, handle: str) -> str | None:
        """What was typed; None for an address of another job."""
        return self._typed.get(handle)


def share(typed_by_handle: Mapping[str, str]) -> Any:
    """Let the processes of this job ask for these; they can as long as the result is kept."""
    import ray

    if not typed_by_handle:
        return None
    # a restarted actor gets the arguments of the first again
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "get_if_exists": True}
    actor: Any = (
        ray.remote(Keys)
        .options(name=_name(), namespace=NAMESPACE, **options)
        .remote(dict(typed_by_handle))
    )
    ray.get(actor.add.remote(dict(typed_by_handle)))
    return actor


def typed(handle: str) -> str | None:
    """What was typed, from the job's actor; None where there is no such job or actor."""
    import ray

    if not ray.is_initialized():
        return None
    try:
        actor: Any = ray.get_actor(_name(), NAMESPACE)
        known: str | None = ray.get(actor.typed.remote(handle))
    except (ValueError, ray.exceptions.RayActorError):
        return None
    return known


def _name() -> str:
    import ray

    return f"keys-{ray.get_runtime_context().get_job_id()}"
