"""What a search has tried, on the store: the same command goes on where it was interrupted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow.fs as pafs

from raypipe.config import digest
from raypipe.names import path_below
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.space import Sweep
from raypipe.recipe.trials import representatives
from raypipe.storage.artifacts import Store

State = Literal["running", "finished", "pruned", "failed", "invalid"]


@dataclass
class Draw:
    """One draw from the space."""

    number: int
    params: Mapping[str, Any]
    """Dotted key to the label of a choice, or to the number drawn from a range."""
    state: State = "running"
    value: float | None = None
    """Best validation value; of a pruned trial the last one it reached."""
    curve: list[float] = field(default_factory=list)
    """Validation values in order, of a trial that could be pruned."""
    error: str = ""


@dataclass(frozen=True)
class Journal:
    """The draws of one search: one small file each, written whole."""

    store: Store
    path: str
    """Below the storage root."""

    @classmethod
    def of(cls, experiment: Experiment, store: Store) -> Journal:
        """The journal of a recipe's search, which more trials or other retries go on in.

        The key holds what trials are trained and validated on, too: a value of other data, another
        model or an earlier version of a step is not the value that its trial would have now.
        """
        search = experiment.sweep.search.replace(trials=1)
        sweep = experiment.sweep.replace(search=search, retries=Sweep().retries)
        trained = {trial.experiment.trained().digest for trial in representatives(experiment)}
        key = digest([experiment.replace(sweep=sweep), sorted(trained)])
        return cls(store, f"search/{path_below(experiment.name, f'-{key}')}")

    def write(self, draw: Draw) -> None:
        """Replace the draw's file."""
        folder = f"{self.store.root}/{self.path}"
        self.store.fs.create_dir(folder, recursive=True)
        target = f"{folder}/trial-{draw.number:05d}.json"
        text = json.dumps(asdict(draw), indent=1).encode()
        if self.store.is_local:  # a local write is not atomic, a rename is
            staged = Path(f"{target}.part")
            staged.write_bytes(text)
            staged.replace(target)
        else:
            with self.store.fs.open_output_stream(target) as out:
                out.write(text)

    def read(self) -> list[Draw]:
        """All draws in the order of their numbers; a file that was cut off counts for nothing."""
        selector = pafs.FileSelector(f"{self.store.root}/{self.path}", allow_not_found=True)
        draws = []
        for info in sorted(self.store.fs.get_file_info(selector), key=lambda info: info.path):
            if info.base_name.endswith(".json"):
                with self.store.fs.open_input_stream(info.path) as stream:
                    text = stream.read()
                try:
                    draws.append(Draw(**json.loads(text)))
                except (ValueError, TypeError):
                    continue
        return sorted(draws, key=lambda draw: draw.number)
