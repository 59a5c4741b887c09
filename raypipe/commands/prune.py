"""Pruning a storage: what nobody refers to any more goes, after it was shown.

Four classes: attempts that nobody writes and no manifest names, Ray Tune's folders of jobs that
ended, copies in this machine's cache above its limit, and, where recipes to keep are named, the
artifacts that none of them needs.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from raypipe.config import ConfigError
from raypipe.progress import Say
from raypipe.storage.artifacts import MANIFEST, Artifact, Store
from raypipe.storage.cache import discard, surplus
from raypipe.storage.files import home, without_secrets
from raypipe.storage.inventory import (
    TUNE,
    TUNE_OVER,
    Folder,
    Inventory,
    Stored,
    folder_at,
    inventory,
    size_text,
)

QUIET_S = 24 * 3600.0
"""A folder into which nobody has written for so long belongs to nobody."""
ATTEMPTS = "attempts that nobody writes and no manifest names"
TUNE_FOLDERS = "Ray Tune's folders of jobs that ended"
_INPUTS = ".inputs.json"
COPIES = "copies in the cache of this machine, above its limit"
ARTIFACTS = "artifacts that no kept recipe needs"


@dataclass(frozen=True)
class Garbage:
    """Something that may go."""

    path: str
    """Below the storage; of a copy its place on this machine."""
    size: int
    remove: Callable[[], bool]
    """Removes it and returns True, unless somebody has begun to use it since."""
    note: str = ""


@dataclass
class Pruning:
    """What goes, by class, and what should be known about what stays."""

    store: Store
    garbage: dict[str, list[Garbage]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(entry.size for entries in self.garbage.values() for entry in entries)

    def lines(self) -> list[str]:
        """What goes, with the sum of each class, and the notes."""
        lines = [f"storage {self.store.shown}"]
        for title, entries in self.garbage.items():
            lines.append(f"{title}: {_sum(entries)}")
            for entry in entries:
                note = f"  ({entry.note})" if entry.note else ""
                lines.append(f"  {size_text(entry.size):>9}  {entry.path}{note}")
        return [*lines, *self.notes]

    def run(self, say: Say) -> bool:
        """Remove everything and say what each class freed; False if something cannot be removed."""
        complete = True
        for title, entries in self.garbage.items():
            gone = []
            for entry in entries:
                try:
                    if entry.remove():
                        gone.append(entry)
                    else:
                        say(f"{entry.path} stays: somebody uses it by now")
                except (OSError, pa.ArrowException) as error:
                    complete = False
                    say(f"{entry.path} could not be removed: {without_secrets(str(error))}")
            say(f"freed: {title}: {_sum(gone)}")
        return complete


def _sum(entries: Sequence[Garbage]) -> str:
    return f"{len(entries)}, {size_text(sum(entry.size for entry in entries))}"


def run(store: Store, keep: Sequence[str], tracking: str | None, yes: bool, say: Say) -> bool:
    """Say what nobody needs any more, and remove it if `yes`.

    Args:
        keep, tracking: see `pruning_of`, which also says what it raises.

    Returns:
        False if something could not be removed.
    """
    pruning = pruning_of(store, keep, tracking)
    for line in pruning.lines():
        say(line)
    if yes:
        return pruning.run(say)
    say(f"nothing was removed; the same command with --yes frees {size_text(pruning.size)}")
    return True


def pruning_of(store: Store, keep: Sequence[str] = (), tracking: str | None = None) -> Pruning:
    """What would be removed; nothing is removed yet.

    Args:
        keep: recipes and tracked jobs, see `needs.needs_of`. What they need and what that was made
            from stays, all other artifacts go. Without any, all artifacts stay.
        tracking: MLflow address of the tracked jobs; None is the default store.

    Raises:
        ConfigError: the storage cannot be read, the needs of a kept recipe cannot be told, or
            $RAYPIPE_CACHE_GB is no positive number.
    """
    found, pruning = inventory(store), Pruning(store)
    needed = found.behind(_needed(keep, found, tracking))
    left = {path: abandoned(store, path) for path, each in found.stored.items() if each.unnamed}
    pruning.garbage[ATTEMPTS] = [
        _attempts(found.stored[path], folders)
        for path, folders in left.items()
        if folders and not (path in needed and found.stored[path].artifact is None)
    ]
    pruning.garbage[TUNE_FOLDERS] = [
        Garbage(f"{TUNE}/{name}", folder.size, partial(_remove_tune, store, f"{TUNE}/{name}"))
        for name, folder in found.tune.items()
        if _is_over(folder)
    ]
    pruning.garbage[COPIES] = [
        Garbage(str(home() / "cache" / path), size, partial(discard, path))
        for path, size in surplus().items()
    ]
    if keep:
        stays = needed | _read_by_living(found, left, pruning.notes)
        pruning.garbage[ARTIFACTS] = _artifacts(found, stays)
    else:
        everything = sum(each.size for each in found.stored.values())
        pruning.notes.append(
            f"artifacts stay, {len(found.artifacts)} of {size_text(everything)}: name the recipes "
            "to keep, --keep RECIPE.yaml, to remove those that none of them needs"
        )
    pruning.notes += [
        f"{path} stays: its manifest cannot be read ({problem}); see verify"
        for path, problem in found.unreadable.items()
    ]
    return pruning


def _needed(keep: Iterable[str], found: Inventory, tracking: str | None) -> set[str]:
    """Paths that kept recipes need.

    Raises:
        ConfigError: see `pruning_of`; or nothing of a recipe stands, so that all would go.
    """
    needed: set[str] = set()
    for word in keep:
        from raypipe.commands.needs import needs_of  # loads torch

        needs = needs_of(word, found.store, tracking)
        if not needs & found.stored.keys():
            raise ConfigError(
                f"--keep {word}: expected artifacts of this recipe in {found.store.shown}, found "
                "none; look at --storage, or leave the recipe out"
            )
        needed |= needs
    return needed


# --- attempts -------------------------------------------------------------------------------------


# JOIN: storage/liveness.py and storage/sweeping.py will have `abandoned` and `sweep`, by leases.
def abandoned(store: Store, step_path: str) -> list[str]:
    """Folders of attempts that no manifest names and into which nobody has written for a day."""
    each = Stored(store, step_path, has_manifest=True)
    each.read()
    selector = pafs.FileSelector(f"{store.root}/{step_path}", allow_not_found=True)
    for info in store.fs.get_file_info(selector):
        if info.type == pafs.FileType.Directory:
            each.attempts[info.base_name] = folder_at(store, f"{step_path}/{info.base_name}")
    return [
        f"{store.root}/{step_path}/{name}"
        for name, folder in each.unnamed.items()
        if _quiet(folder)
    ]


def sweep(store: Store, step_path: str) -> list[str]:
    """Remove the abandoned attempts below an artifact's path; returns their folders."""
    folders = abandoned(store, step_path)
    for folder in folders:
        store.fs.delete_dir(folder)
    return folders


def _attempts(each: Stored, folders: Sequence[str]) -> Garbage:
    """The abandoned attempts at one artifact."""
    size = sum(each.attempts[Path(folder).name].size for folder in folders)
    note = f"{len(folders)} attempt{'s' if len(folders) > 1 else ''}"
    if each.artifact is None:
        note += ", unfinished: without them the work begins anew"
    return Garbage(each.path, size, partial(_remove_attempts, each.store, each.path), note)


def _remove_attempts(store: Store, path: str) -> bool:
    swept = sweep(store, path)
    _remove_empty(store, path)
    return bool(swept)


def _quiet(folder: Folder) -> bool:
    return folder.last_write is not None and time.time() - folder.last_write > QUIET_S


# --- Ray Tune's folders ---------------------------------------------------------------------------


def _is_over(folder: Folder) -> bool:
    """Whether the job has ended: it said so, or it was killed. A living one writes every minute."""
    return TUNE_OVER in folder.files or _quiet(folder)


def _remove_tune(store: Store, path: str) -> bool:
    if not _is_over(folder_at(store, path)):
        return False
    store.fs.delete_dir(f"{store.root}/{path}")
    return True


# --- artifacts ------------------------------------------------------------------------------------


def _artifacts(found: Inventory, stays: set[str]) -> list[Garbage]:
    entries = []
    for path, artifact in found.artifacts.items():
        if path not in stays:
            attempt = found.stored[path].attempts.get(artifact.manifest["attempt"], Folder())
            entries.append(Garbage(path, attempt.size, partial(_remove_artifact, artifact)))
    return entries


def _remove_artifact(artifact: Artifact) -> bool:
    """Remove the manifest, then the attempt that it names: a reader finds all of it or nothing."""
    store, path = artifact.store, artifact.step_path
    now = Stored(store, path, has_manifest=True)
    now.read()
    if now.artifact != artifact:
        return False
    store.fs.delete_file(f"{store.root}/{path}/{MANIFEST}")
    with contextlib.suppress(FileNotFoundError):
        store.fs.delete_dir(f"{store.root}/{path}/{artifact.manifest['attempt']}")
    _remove_empty(store, path)
    return True


def _remove_empty(store: Store, path: str) -> None:
    """Remove the folder of an artifact without attempts; object stores have no empty folders."""
    if store.is_local:
        with contextlib.suppress(OSError):  # a writer has begun an attempt
            Path(store.root, path).rmdir()


def _read_by_living(found: Inventory, left: dict[str, list[str]], notes: list[str]) -> set[str]:
    """Paths that attempts read which are being written now, and what those were made from.

    Args:
        left: the abandoned attempts of every path that has attempts without a manifest.
        notes: gets a sentence if there are such attempts.
    """
    paths: set[str] = set()
    unknown = []
    living = [
        f"{path}/{name}"
        for path, folders in left.items()
        for name in found.stored[path].unnamed
        if f"{found.store.root}/{path}/{name}" not in folders
    ]
    for attempt in living:
        paths.add(attempt.rpartition("/")[0])
        try:
            with found.store.fs.open_input_stream(
                f"{found.store.root}/{attempt}/{_INPUTS}"
            ) as stream:
                paths |= {entry["path"] for entry in json.loads(stream.read()).values()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            unknown.append(attempt)
    if living:
        notes.append(
            f"{len(living)} attempts may be written now: what they read stays, and what their jobs "
            "read later goes unless a kept recipe needs it"
        )
    if unknown:
        notes.append(f"what these read is not known: {', '.join(unknown)}")
    return found.behind(paths)
