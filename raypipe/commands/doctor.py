"""Looks at what a job will find on this machine: versions, processor, GPU, disk, ports, stores."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from raypipe.config import ConfigError
from raypipe.extras import EXTRAS, NEEDS, absent, is_there, remedy, sentence_on
from raypipe.storage.files import home

VERSIONED = ("pyarrow", "ir-measures", "torch", "transformers", "ray", "mlflow-skinny")
OPTIONAL = ("sentence-transformers", "bm25s")
LOW_DISK_GB, LOW_MEMORY_GB = 5, 4
Mark = Literal["ok", "note", "wrong"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and what to do if it is not well."""

    what: str
    mark: Mark
    text: str


def findings(storage: str | None = None, tracking: str | None = None) -> Iterator[Finding]:
    """Everything that is looked at, one after the other; nothing is changed but a test file.

    Args:
        storage: of artifacts; None is $RAYPIPE_HOME/storage.
        tracking: MLflow address; None is the default.
    """
    yield _python()
    yield from map(_version, VERSIONED)
    yield from map(_optional, OPTIONAL)
    yield from _extras()
    yield _processor()
    yield _gpu()
    yield _memory()
    yield _disk()
    yield _port(8265, "Ray's dashboard")
    yield _port(5000, "the MLflow UI")
    yield _storage(storage)
    yield _tracking(tracking)
    yield _hub()


def _python() -> Finding:
    good = sys.version_info[:2] >= (3, 11)
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding(
        "Python", "ok" if good else "wrong", text + ("" if good else "; install 3.11 or newer")
    )


def _version(name: str) -> Finding:
    """Without a library of an extra some commands cannot run; without another one, none."""
    try:
        return Finding(name, "ok", importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        extra = next((extra for extra, own in EXTRAS.items() if name in own.values()), "")
        mark: Mark = "note" if extra else "wrong"
        return Finding(name, mark, f"not installed; {remedy(extra)}")


def _optional(name: str) -> Finding:
    found = _version(name)
    return found if found.mark == "ok" else Finding(name, "note", "not installed, and optional")


def _extras() -> Iterator[Finding]:
    """Which extras are here, and a line for each one that is not, with what it lacks."""
    lacking = {extra: absent(extra) for extra in EXTRAS}
    here = [extra for extra, lacks in lacking.items() if not lacks]
    yield Finding("extras", "ok" if here else "note", ", ".join(here) or "none")
    for extra, lacks in lacking.items():
        if lacks:
            more = f" and {len(lacks) - 3} more" if len(lacks) > 4 else ""
            names = ", ".join(lacks[:3] if more else lacks)
            commands = ", ".join(name for name, (needs, _) in NEEDS.items() if needs == extra)
            use = f" for raypipe {commands}" if commands else ""
            text = f"lacks {names}{more}; {remedy(extra)}{use}"
            yield Finding(f"extra {extra}", "note", text)


def _processor() -> Finding:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        from raypipe.resources import default_precision

        precision = default_precision()
    except ImportError as error:
        return _without_torch("processor", f"{count} cores; ", error)
    why = "bf16 products" if precision == "bf16" else "no bf16 products, so that bf16 is emulated"
    return Finding("processor", "ok", f"{count} cores, {why}: precision auto is {precision}")


def _gpu() -> Finding:
    try:
        import torch
    except ImportError as error:
        return _without_torch("GPU", "", error)
    if not torch.cuda.is_available():
        return Finding("GPU", "note", "none; stages train on CPUs")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding("GPU", "ok", ", ".join(names))


def _without_torch(what: str, text: str, error: ImportError) -> Finding:
    """Where torch is not installed nobody misses it; where it is and breaks, jobs do."""
    if not is_there("torch"):
        return Finding(what, "note", f"{text}torch, which would be asked, is not installed")
    return Finding(what, "wrong", f"{text}torch cannot be loaded: {error}")


def _memory() -> Finding:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError, AttributeError):
        return Finding("memory", "note", "not known")
    low = size < LOW_MEMORY_GB
    text = f"{size:.0f} GB" + (f"; Ray and one training want {LOW_MEMORY_GB} GB" if low else "")
    return Finding("memory", "note" if low else "ok", text)


def _disk() -> Finding:
    place = home()
    there = next(p for p in [place, *place.parents] if p.is_dir())
    free = shutil.disk_usage(there).free / 2**30
    low = free < LOW_DISK_GB
    text = f"{free:.0f} GB free at {place}" + ("; free some, or set RAYPIPE_HOME" if low else "")
    return Finding("disk", "wrong" if free < 1 else "note" if low else "ok", text)


def _port(number: int, what: str) -> Finding:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            return Finding(f"port {number}", "note", f"taken; {what} takes another")
    return Finding(f"port {number}", "ok", f"free for {what}")


def _storage(address: str | None) -> Finding:
    from raypipe.storage.address import Address
    from raypipe.storage.artifacts import Store

    try:
        store = Store(Address(address) if address else str(home() / "storage"))
        if store.is_local and not Path(store.root).exists():
            there = next(p for p in Path(store.root).parents if p.exists())
            if there.is_dir() and os.access(there, os.W_OK):
                return Finding("storage", "ok", f"{store.root} will be made by the first job")
            return Finding("storage", "wrong", f"{store.root} cannot be made: {there} is not ours")
        store.check_writable()
    except (ConfigError, OSError, ValueError) as error:
        return Finding("storage", "wrong", str(error))
    return Finding("storage", "ok", f"{store.shown_path('')} can be written to")


def _tracking(address: str | None) -> Finding:
    from raypipe.tracking.client import default_uri, look

    try:
        return Finding("tracking", "ok", look(address or default_uri()))
    except ConfigError as error:
        return Finding("tracking", "wrong", str(error))
    except ModuleNotFoundError as error:
        if (sentence := sentence_on(error)) is None:
            raise
        return Finding("tracking", "note", f"not asked: {sentence}")


def _hub() -> Finding:
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        return Finding("Hugging Face hub", "note", "not asked: HF_HUB_OFFLINE is set")
    return Finding("Hugging Face hub", "note", f"not asked; models are kept in {_hub_home()}")


def _hub_home() -> Path:
    return Path(os.environ.get("HF_HOME", "~/.cache/huggingface"))
