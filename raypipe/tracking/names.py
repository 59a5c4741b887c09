"""Names that MLflow accepts, and addresses of its pages. No import of MLflow.

What every place takes stands in `raypipe.names`; MLflow takes less."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from raypipe.names import encodable, path_part, shortened

ROW_TAG = "raypipe.row"
"""The tag of a run that belongs to a row of the report: the row's name."""
NAME_TAG = "raypipe.name"
"""The tag with a run's own name, which other jobs' runs may have too."""
SEED_TAG = "raypipe.seed"
"""Tag of trials and stages."""
NOTE_TAG = "mlflow.note.content"
"""The tag with the Markdown that MLflow shows on the page of a run."""
_MODE = "workflowType=machine_learning"
"""Shows MLflow's pages of trainings, not those of traces; earlier versions do not read it."""
TRAININGS = f"#/experiments?{_MODE}"
"""The page of all experiments, behind a server's address."""
_PARAM_CHARS, _KEY_CHARS = 6000, 250
_NO_FILE = "#%?"
"""What a server refuses in the name of a file, or reads as something else."""


def run_page(server: str, experiment_id: str, run_id: str) -> str:
    """The address of a run's page in the UI; for a database, which has no pages, store and run id.

    Args:
        server: the address of the server or database, without a password.
    """
    if not server.startswith("http"):
        return f"{server} run {run_id}"
    page = f"{server.rstrip('/')}/#/experiments/{quote(experiment_id)}/runs/{quote(run_id)}"
    return f"{page}?{_MODE}"


def metric_name(measure: str) -> str:
    """A measure as MLflow accepts it: `nDCG@10` is `nDCG_10`, `RR(rel=2)@10` is `RR.rel-2_10`.

    A test set may stand before it: `DL 2020/nDCG@10` is `DL 2020/nDCG_10`.
    """
    head, slash, tail = measure.rpartition("/")
    match = re.fullmatch(r"([^()@]+)(?:\(([^()]*)\))?(?:@(\d+(?:\.\d+)?))?", tail)
    if match is None:
        return key(measure)
    name, params, cutoff = match.groups()
    for item in (params or "").split(","):
        field, equals, value = item.strip().partition("=")
        name += f".{field.strip()}-{value.strip(' ' + chr(34) + chr(39))}" if equals else ""
    return key(f"{head}{slash}{name}_{cutoff}" if cutoff else f"{head}{slash}{name}")


def key(name: str) -> str:
    """`name` with the characters that MLflow refuses replaced, on any platform."""
    legal = re.sub(r"[^\w.\-/ ]", "_", str(name))
    if len(legal) > _KEY_CHARS:  # the end of a metric's name is its measure
        own = hashlib.sha256(encodable(str(name)).encode()).hexdigest()[:8]
        half = (_KEY_CHARS - len(own) - 2) // 2
        legal = f"{legal[:half]}_{own}_{legal[-half:]}"
    ambiguous = posixpath.normpath(legal) != legal or legal == "." or legal.startswith(("/", ".."))
    return legal.replace("/", "_").strip(".") or "_" if ambiguous else legal


def model_name(name: str) -> str:
    """`name` as the model registry accepts it."""
    legal = re.sub("[/:]", "_", name)[:_KEY_CHARS]
    return f"_{legal}" if legal.startswith(".") else legal


def run_name(name: str) -> str:
    """`name` as the title of a run, for which databases have so many characters."""
    return shortened(name, _KEY_CHARS)


def distinct_name(name: str, seed: object, stamp: str) -> str:
    """The title of a run, which tells it from runs of other seeds and other jobs of its name.

    Args:
        seed: of a trial or stage; None of others, and where the name says it.
        stamp: when the job began; empty leaves it out.
    """
    parts = [] if seed is None or f"seed {seed}" in name else [f"seed {seed}"]
    behind = "".join(f", {part}" for part in (*parts, stamp) if part)
    return shortened(name, _KEY_CHARS - len(behind)) + behind


def experiment_folder(name: str) -> str:
    """The folder of an experiment's files: one folder, whatever the experiment is called."""
    return path_part(re.sub(r"[^\w.-]", "_", name))


def file_name(name: str) -> str:
    """`name` as that of a file of a run; its suffix stays."""
    stem, dot, suffix = name.rpartition(".")
    return path_part(stem, f".{suffix}", _NO_FILE) if dot else path_part(name, "", _NO_FILE)


def cells(params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(legal key, cut value) of every parameter; keys that become equal are numbered apart."""
    values: dict[str, str] = {}
    for name, value in params.items():
        legal, n = key(name), 2
        while legal in values:
            legal, n = f"{key(name)[: _KEY_CHARS - 8]}_{n}", n + 1
        values[legal] = str(value)[:_PARAM_CHARS]
    return list(values.items())
