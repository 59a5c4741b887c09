"""Rows of the benchmark: what raypipe does in one run beside another way, as table and JSON."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

LESS = ("s", "CPU s", "MB", "questions")
"""Units of which less is better; of the others, pairs and queries per second, more."""


@dataclass(frozen=True)
class Measured:
    """One kind of work."""

    work: str
    unit: str
    raypipe: float
    against: str = ""
    """The other way; empty for a cost that nothing is compared with."""
    other: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times better raypipe's figure is."""
        if self.other is None:
            return None
        better, worse = self.raypipe, self.other
        return worse / better if self.unit in LESS else better / worse


HEAD = "| work | unit | raypipe | against | other | ratio |\n|---|---|---|---|---|---|"


def line(row: Measured) -> str:
    """A row of the Markdown table below `HEAD`."""
    other, ratio = ("" if x is None else f"{x:,.{n}f}" for x, n in ((row.other, 1), (row.ratio, 2)))
    return f"| {row.work} | {row.unit} | {row.raypipe:,.1f} | {row.against} | {other} | {ratio} |"


def show(rows: Iterable[Measured]) -> list[Measured]:
    """Print the table while rows come."""
    shown = []
    print(HEAD, flush=True)
    for row in rows:
        print(line(row), flush=True)
        shown.append(row)
    return shown


def machine(packages: Iterable[str]) -> dict[str, Any]:
    """Processor, date and versions."""
    import psutil
    import torch

    names = [name for name in _processor() if name]
    return {
        "processor": names[0] if names else platform.machine(),
        "cpus": psutil.cpu_count(),
        "cores": psutil.cpu_count(logical=False),
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "load": round(psutil.getloadavg()[0], 1),
        "date": time.strftime("%Y-%m-%d"),
        **{name: version(name) for name in packages},
    }


def _processor() -> list[str]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]


def as_json(facts: Mapping[str, Any], rows: Iterable[Measured]) -> str:
    """The machine and all rows with their ratios."""
    listed = [{**asdict(row), "ratio": row.ratio} for row in rows]
    return json.dumps({"machine": dict(facts), "rows": listed})
