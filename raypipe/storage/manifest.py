"""Manifests: what an artifact's only published file says, and whether it can be believed."""

from __future__ import annotations

import contextlib
import functools
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from raypipe.config import ConfigError
from raypipe.names import path_below
from raypipe.storage.root import StorageRoot

MANIFEST = "manifest.json"
FORMAT = 1
_FIELDS = {
    **dict.fromkeys(("kind", "name", "digest", "attempt", "written"), str),
    **dict.fromkeys(("files", "inputs", "counts", "spec"), dict),
}
_OPTIONAL: dict[str, type] = {
    **dict.fromkeys(("versions", "facts", "used"), dict),
    **{"replaces": list, "seconds": int, "machine": str, "step": str},
}
_ENTRIES: dict[str, dict[str, type]] = {
    "files": {"size": int, "sha256": str},
    "inputs": {"path": str},
}
_VERSIONED = (
    *("raypipe", "ray", "torch", "transformers", "tokenizers", "pyarrow", "numpy", "bm25s"),
    *("PyStemmer", "faiss-cpu", "vllm"),
)


def artifact_path(kind: str, name: str, digest: str) -> str:
    """An artifact's path below the storage root, whatever its step is called."""
    return f"{kind}/{path_below(name, f'-{digest}')}"


def content_of(root: StorageRoot, path: str) -> bytes | None:
    """The manifest's bytes below an artifact's path; None without a manifest.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        with root.fs.open_input_stream(f"{root.root}/{path}/{MANIFEST}") as stream:
            content: bytes = stream.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return content


def parsed(text: bytes, path: str) -> dict[str, Any]:
    """The manifest that stands at an artifact's path, <kind>/<name>-<digest>.

    Raises:
        ValueError: the file is empty, cut off, or holds anything else; what was expected and found.
        ConfigError: a later version of raypipe wrote it.
    """
    manifest = _fields_of(text)
    found = manifest.get("format")
    if isinstance(found, int) and found > FORMAT:
        raise ConfigError(
            f"artifact {path}: expected a manifest of format {FORMAT}, found {found}, which a "
            "newer raypipe wrote; install that, or set another storage="
        )
    for name, kind in _FIELDS.items():
        if not isinstance(manifest.get(name), kind):
            raise ValueError(f"expected the field {name!r}, found {str(manifest.get(name))[:40]!r}")
    for name, kinds in _OPTIONAL.items():
        if not isinstance(manifest.get(name, kinds()), (kinds, float) if kinds is int else kinds):
            raise ValueError(f"expected no other {name!r}, found {str(manifest[name])[:40]!r}")
    for name, fields in _ENTRIES.items():
        for entry in manifest[name].values():
            known = entry if isinstance(entry, dict) else {}
            if not all(isinstance(known.get(key), kind) for key, kind in fields.items()):
                raise ValueError(f"expected {name} with {' and '.join(fields)}, found {entry!r}")
    if "/" in manifest["attempt"] or not _is_below(manifest["attempt"]):
        raise ValueError(f"expected the name of a folder as attempt, found {manifest['attempt']!r}")
    for name in manifest["files"]:
        if not _is_below(name):
            raise ValueError(f"expected files of the artifact's own, found {name!r}")
    own_path = artifact_path(manifest["kind"], manifest["name"], manifest["digest"])
    if own_path != path:
        raise ValueError(f"expected the manifest of {path}, found that of {own_path}")
    return manifest


def _is_below(name: str) -> bool:
    """Whether a path leads to a file or folder below the one that it is relative to."""
    parts = name.split("/")
    return name.isprintable() and all(
        part not in ("", ".", "..") and len(part.encode()) < 256 for part in parts
    )


def _fields_of(text: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"expected JSON, found {len(text)} bytes that are none") from None
    if not isinstance(manifest, dict):
        raise ValueError(f"expected fields, found a {type(manifest).__name__}")
    return manifest


def unreadable(where: str, error: OSError) -> ConfigError:
    """The error of a file or folder in the storage that is there and cannot be read."""
    return ConfigError(
        f"{where}: expected a file that can be read, found {error.strerror or error}; give this "
        "user the right to read it, or remove it, then raypipe makes the artifact again"
    )


def as_bytes(manifest: Mapping[str, Any]) -> bytes:
    """The file's content."""
    return json.dumps(dict(manifest), indent=1, sort_keys=True).encode()


def versions() -> dict[str, str]:
    """Installed versions of the libraries that results depend on."""
    return dict(_installed())


@functools.cache
def _installed() -> Mapping[str, str]:
    """Of this process, which does not load another version."""
    installed = {"python": platform.python_version()}
    for name in _VERSIONED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed
