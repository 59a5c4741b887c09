"""Bi-encoders that stages train: the recipe's part, and the module that gives vectors with a graph.

Checkpoints are Hugging Face directories that sentence-transformers opens with the same vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from raypipe.models.attention import attention_kernel
from raypipe.models.backbone import Backbone
from raypipe.models.bi_encoder import BiEncoder, Encoder
from raypipe.models.checks import check_layers
from raypipe.models.dropout import draws_dropout, set_dropout
from raypipe.models.sentence_modules import folder_reader
from raypipe.models.tokenizer import copy_tokenizer, write_tokenizer
from raypipe.models.vector_head import vector_head
from raypipe.models.weights import align, encoder_config, read_encoder
from raypipe.models.written_modules import write_modules


class TrainedBiEncoder(BiEncoder):
    """A transformer that reads query and document each alone and gives one vector per text.

    A pair's score is the product of the two vectors over `temperature`; with unit vectors it is
    their cosine over `temperature`.
    """

    type: Literal["bi_encoder"] = "bi_encoder"
    max_length: int = Field(256, ge=8)
    """Tokens per document, special tokens and prefix included; longer ones are cut."""
    query_length: int = Field(64, ge=8)
    """Tokens per query, counted alike."""
    temperature: float = Field(0.05, gt=0)
    """Divides the product of the vectors, in training as in every score. 0.05 makes of cosines
    scores of -20 to 20, as sentence-transformers' losses do; 1 leaves cosines, and dot products,
    to the temperature of the loss."""
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout of attention weights; 0 is exact across worker counts."""
    hidden_dropout: float | None = Field(None, ge=0, lt=1)
    """None keeps the backbone's own (mostly .1)."""

    keep_layers: ClassVar[None] = None
    """All layers are used."""
    ranks_untrained: ClassVar[bool] = True
    """The vectors are compared as they are: nothing is drawn at random."""

    def load(  # type: ignore[override]
        self, folder: Path, seed: int, *, training: bool, device: str, label: int | None = None
    ) -> TrainedEncoder:
        """The encoder in float32 on `device`; `label` is that of cross-encoders.

        Args:
            folder: a Hugging Face directory with safetensors, also of a cross-encoder, whose head
                is left out.
            seed: draws a pooler that the folder does not have, and that no vector reads.
            training: dropout is active.
            device: "cpu" or "cuda[:n]".

        Raises:
            ConfigError: the folder holds no encoder, or not all of its weights.
        """
        assert label is None, "vectors have no labels"
        where = f"model.backbone {self.backbone}, read from {folder}"
        modules = self.modules(folder_reader(folder))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = read_encoder(
                folder,
                where,
                lambda kind: attention_kernel(device, kind),
                lambda config: set_dropout(config, self.attention_dropout, self.hidden_dropout),
            )
        align(model)
        if (pooler := getattr(model, "pooler", None)) is not None:
            pooler.requires_grad_(False)  # no vector reads it
        width = int(model.config.hidden_size)  # type: ignore[union-attr,arg-type]
        head = vector_head(folder, modules.pooling, modules.layers, width, where)
        return TrainedEncoder(model, head).to(device).train(training)

    def has_dropout(self, published: Mapping[str, Any]) -> bool:
        """Whether training draws random numbers for dropout: see `draws_dropout`."""
        return draws_dropout(published, self.attention_dropout, self.hidden_dropout)

    def save(self, model: nn.Module, folder: Path, start: Path, longest: int) -> None:
        """Write a Hugging Face directory with the modules of sentence-transformers.

        Args:
            folder: the directory to write.
            start: the directory that the model was read from, for its tokenizer and prompts.
            longest: tokens per text, at which the saved tokenizer cuts.
        """
        from transformers.utils.logging import disable_progress_bar

        assert isinstance(model, TrainedEncoder), type(model)
        read = folder_reader(start)
        query, document = self.prefixes(read)
        folder.mkdir(parents=True, exist_ok=True)
        if hasattr(model.config, "sentence_transformers"):  # of the cross-encoder before
            del model.config.sentence_transformers
        disable_progress_bar()  # of a file or two
        model.model.save_pretrained(folder, safe_serialization=True)  # type: ignore[operator]
        write_modules(
            folder,
            self.modules(read),
            model.head,
            width=int(model.config.hidden_size),
            longest=longest,
            prompts={"query": query, "document": document},
        )
        copy_tokenizer(start, folder)
        write_tokenizer(folder, longest)

    def check(  # type: ignore[override]
        self, lengths: Mapping[str, int] | None = None, frozen: Mapping[str, int] | None = None
    ) -> None:
        """Resolve the backbone and read its configuration, before work starts.

        Args:
            lengths: as of a cross-encoder; a bi-encoder's own fields say its lengths.
            frozen: the recipe's field to the number of first layers that the field freezes.

        Raises:
            ConfigError: see `BiEncoder.check`, or the model has fewer layers.
        """
        super().check("model")
        where = f"model.backbone {self.backbone}"
        config = encoder_config(Backbone(self.backbone).weightless(), where)
        for field, layers in (frozen or {}).items():
            check_layers(config, field, layers, where, headless=True)


class TrainedEncoder(Encoder):
    """Token ids to vectors, with what freezing and recomputing ask of a transformers model."""

    @property
    def config(self) -> Any:
        """The transformer's configuration, which is saved with the weights."""
        return self.model.config

    @property
    def base_model(self) -> nn.Module:
        """The transformer without the head."""
        return self.model

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """As of the transformer."""
        self.model.gradient_checkpointing_enable(**options)  # type: ignore[operator]

    def get_input_embeddings(self) -> nn.Module:
        """As of the transformer."""
        embeddings: nn.Module = self.model.get_input_embeddings()  # type: ignore[operator]
        return embeddings
