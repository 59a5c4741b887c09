"""When, where and with which code a report is made, for its reader."""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from pathlib import Path

from raypipe.tracking.recorder import commit


def origin() -> dict[str, str]:
    """Date in UTC, commit where the package is a checkout, and the machine without its name."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = (
        f"{_processor()}, {cores} cores",
        f"{platform.system()} {platform.machine()}",
        f"Python {platform.python_version()}",
    )
    code = next(iter(commit().values()), "")
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        **({"commit": code} if code else {}),
        "machine": ", ".join(machine),
    }


def _processor() -> str:
    """The model as Linux names it; elsewhere as Python does."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
