"""kill -9 of a slot's process and of the slots' manager: the work goes on in new ones.

python -m pytest -m chaos tests/chaos/test_kill_slots.py -s      prints how long a new one takes
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from raypipe.resources import Resources
from raypipe.stages.slots import FailedWorkError, open_slots
from raypipe.storage.artifacts import Store

pytestmark = pytest.mark.chaos


@dataclass(frozen=True)
class DiesOnce:
    """Work that tells its process; the first that does it dies, unless the marker is there."""

    marker: Path

    def run(self, rank: int, world: int, tell: Any) -> int:
        if not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()


def test_deaths(cluster, tmp_path):
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    resources = Resources(cpus_per_worker=1)
    there = tmp_path / "there"
    there.touch()
    with open_slots(Store(str(tmp_path)), shared=True) as slots:

        def done(marker: Path, failures: int = 1) -> int:
            begun = time.monotonic()
            settings = resources.replace(worker_failures=failures)
            (pid,) = slots.run(DiesOnce(marker), settings, marker.name)
            print(f"\n{marker.name}: {time.monotonic() - begun:.1f} s")
            return pid

        first = done(there)
        assert done(there) == first
        second = done(tmp_path / "dies")
        assert second != first and done(there) == second
        with pytest.raises(FailedWorkError, match="died"):
            done(tmp_path / "dies too often", 0)
        third = done(there)
        assert third not in (first, second)
        ray.kill(slots.manager, no_restart=False)
        assert done(there) not in (first, second, third)
