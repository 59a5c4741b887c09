"""Manifests: what an artifact's only published file says, and whether it can be believed."""

from __future__ import annotations

import contextlib
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from raypipe.config import ConfigError

MANIFEST = "manifest.json"
FORMAT = 1
_TEXTS = ("digest", "kind", "name", "attempt")
_MAPPINGS = ("files", "inputs", "counts", "spec")
_VERSIONED = (
    *("raypipe", "ray", "torch", "transformers", "tokenizers", "pyarrow", "numpy", "bm25s"),
    *("PyStemmer", "faiss-cpu", "vllm"),
)


def parsed(text: bytes) -> dict[str, Any] | None:
    """The manifest; None if the file is empty, cut off, or holds anything else.

    Raises:
        ConfigError: a later version of raypipe wrote it.
    """
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError):
        return None
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if isinstance(found, int) and found > FORMAT:
        raise ConfigError(
            f"artifact {manifest.get('name')}: expected a manifest of format {FORMAT}, found "
            f"{found}, which a newer raypipe wrote; install that, or set another storage="
        )
    return manifest if _is_manifest(manifest) else None


def _is_manifest(manifest: Any) -> bool:
    return (
        isinstance(manifest, dict)
        and all(isinstance(manifest.get(name), str) and manifest[name] for name in _TEXTS)
        and all(isinstance(manifest.get(name), dict) for name in _MAPPINGS)
        and _is_below(manifest["attempt"])
        and all(_is_below(name) and _is_file(meta) for name, meta in manifest["files"].items())
    )


def _is_below(name: str) -> bool:
    """Whether a path stays below the folder that it is relative to."""
    return not name.startswith("/") and ".." not in name.split("/")


def _is_file(meta: Any) -> bool:
    """Whether the entry holds a file's size and checksum."""
    return (
        isinstance(meta, dict)
        and isinstance(meta.get("size"), int)
        and isinstance(meta.get("sha256"), str)
    )


def as_bytes(manifest: Mapping[str, Any]) -> bytes:
    """The file's content."""
    return json.dumps(dict(manifest), indent=1, sort_keys=True).encode()


def versions() -> dict[str, str]:
    """Installed versions of the libraries that results depend on."""
    installed = {"python": platform.python_version()}
    for name in _VERSIONED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed
