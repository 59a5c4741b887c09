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

from raypipe.config import ConfigError
from raypipe.progress import Say
from raypipe.storage.artifacts import Artifact, Store
from raypipe.storage.cache import discard, surplus
from raypipe.storage.files import home
from raypipe.storage.inventory import (
    ANSWERS,
    TUNE,
    TUNE_OVER,
    Folder,
    Inventory,
    Place,
    folder_at,
    inventory,
    place_at,
    size_text,
)
from raypipe.storage.manifest import MANIFEST
from raypipe.storage.resume import INPUTS
from raypipe.storage.sweeping import abandoned, sweep

QUIET_S = 24 * 3600.0
"""A folder into which nobody has written for so long belongs to nobody."""
ATTEMPTS = "attempts that nobody writes and no manifest names"
TUNE_FOLDERS = "Ray Tune's folders of jobs that ended"
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
class LeftOvers:
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
                    say(f"{entry.path} could not be removed: {self.store.uri.clean(str(error))}")
            say(f"freed: {title}: {_sum(gone)}")
        return complete


def _sum(entries: Sequence[Garbage]) -> str:
    return f"{len(entries)}, {size_text(sum(entry.size for entry in entries))}"


def run(store: Store, keep: Sequence[str], tracking: str | None, yes: bool, say: Say) -> bool:
    """Say what nobody needs any more, and remove it if `yes`.

    Args:
        keep, tracking: see `left_overs`, which also says what it raises.

    Returns:
        False if something could not be removed.
    """
    left_over = left_overs(store, keep, tracking)
    for line in left_over.lines():
        say(line)
    if yes:
        return left_over.run(say)
    say(f"nothing was removed; the same command with --yes frees {size_text(left_over.size)}")
    return True


def left_overs(store: Store, keep: Sequence[str] = (), tracking: str | None = None) -> LeftOvers:
    """What would be removed; nothing is removed yet.

    Args:
        keep: recipes and tracked jobs, see `needs.needs_of`. What they need and what that was made
            from stays, all other artifacts go. Without any, all artifacts stay.
        tracking: MLflow address of the tracked jobs; None is the default store.

    Raises:
        ConfigError: the storage cannot be read, the needs of a kept recipe cannot be told, or
            $RAYPIPE_CACHE_GB is no positive number.
    """
    contents, left_over = inventory(store), LeftOvers(store)
    needed = contents.behind(_needed(keep, contents, tracking))
    unnamed = [path for path, place in contents.places.items() if place.unnamed]
    dead = {path: [state.folder for state in abandoned(store, path)] for path in unnamed}
    left_over.garbage[ATTEMPTS] = [
        _attempts(contents.places[path], folders)
        for path, folders in dead.items()
        if folders and not (path in needed and contents.places[path].artifact is None)
    ]
    left_over.garbage[TUNE_FOLDERS] = [
        Garbage(f"{TUNE}/{name}", folder.size, partial(_remove_tune, store, f"{TUNE}/{name}"))
        for name, folder in contents.tune.items()
        if _is_over(folder)
    ]
    left_over.garbage[COPIES] = [
        Garbage(str(home() / "cache" / path), size, partial(discard, path))
        for path, size in surplus().items()
    ]
    if keep:
        stays = needed | _read_by_living(contents, dead, left_over.notes)
        left_over.garbage[ARTIFACTS] = _artifacts(contents, stays)
    else:
        everything = sum(place.size for place in contents.places.values())
        left_over.notes.append(
            f"artifacts stay, {len(contents.artifacts)} of {size_text(everything)}: name the "
            "recipes to keep, --keep RECIPE.yaml, to remove those that none of them needs"
        )
    left_over.notes += _answers(store)
    left_over.notes += [
        f"{path} stays: its manifest cannot be read ({problem}); see verify"
        for path, problem in contents.unreadable.items()
    ]
    return left_over


def _answers(store: Store) -> list[str]:
    """What is said of language models' answers, which stay: they may have been paid for."""
    if not (size := folder_at(store, ANSWERS).size):
        return []
    return [
        f"answers of language models stay, {size_text(size)}: later jobs ask nothing twice; remove "
        f"{store.shown_path(ANSWERS)} to have them asked again"
    ]


def _needed(keep: Iterable[str], contents: Inventory, tracking: str | None) -> set[str]:
    """Paths that kept recipes need.

    Raises:
        ConfigError: see `left_overs`; or nothing of a recipe stands, so that all would go.
    """
    needed: set[str] = set()
    for word in keep:
        from raypipe.commands.needs import needs_of  # loads torch

        needs = needs_of(word, contents.store, tracking)
        if not needs & contents.places.keys():
            raise ConfigError(
                f"--keep {word}: expected artifacts of this recipe in {contents.store.shown}, "
                "found none; look at --storage, or leave the recipe out"
            )
        needed |= needs
    return needed


# --- attempts -------------------------------------------------------------------------------------


def _attempts(place: Place, folders: Sequence[str]) -> Garbage:
    """The abandoned attempts at one artifact."""
    size = sum(place.attempts[Path(folder).name].size for folder in folders)
    note = f"{len(folders)} attempt{'s' if len(folders) > 1 else ''}"
    if place.artifact is None:
        note += ", unfinished: without them the work begins anew"
    return Garbage(place.path, size, partial(_remove_attempts, place.store, place.path), note)


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


def _artifacts(contents: Inventory, stays: set[str]) -> list[Garbage]:
    entries = []
    for path, artifact in contents.artifacts.items():
        if path not in stays:
            size = contents.places[path].size
            entries.append(Garbage(path, size, partial(_remove_artifact, artifact)))
    return entries


def _remove_artifact(artifact: Artifact) -> bool:
    """Remove the manifest, then the attempt that it names: a reader finds all of it or nothing."""
    store, path = artifact.store, artifact.step_path
    if place_at(store, path).artifact != artifact:
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


def _read_by_living(contents: Inventory, dead: dict[str, list[str]], notes: list[str]) -> set[str]:
    """Paths that attempts read which are being written now, and what those were made from.

    Args:
        dead: the abandoned attempts of every path that has attempts without a manifest.
        notes: gets a sentence if there are such attempts.
    """
    paths: set[str] = set()
    unknown = []
    living = [
        f"{path}/{name}"
        for path, folders in dead.items()
        for name in contents.places[path].unnamed
        if f"{contents.store.root}/{path}/{name}" not in folders
    ]
    for attempt in living:
        paths.add(attempt.rpartition("/")[0])
        try:
            with contents.store.fs.open_input_stream(
                f"{contents.store.root}/{attempt}/{INPUTS}"
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
    return contents.behind(paths)
