"""A cross-encoder whose head is the similarity of the two texts, read together.

This file is copied into a checkpoint's folder, so that transformers and sentence-transformers open
the checkpoint with `trust_remote_code=True`. It therefore imports nothing of raypipe.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

MODEL_TYPE = "raypipe_similarity"
SCALE = 20.0
"""What the scale of the cosine begins with: that of sentence-transformers' ranking losses."""
_MIRRORED = ("num_hidden_layers", "hidden_size", "vocab_size", "max_position_embeddings")


class SimilarityConfig(PretrainedConfig):  # type: ignore[misc]
    """The configuration of the backbone, and how to tell where the document begins."""

    model_type = MODEL_TYPE

    def __init__(
        self,
        backbone: dict[str, Any] | None = None,
        separator: list[int] | None = None,
        **settings: Any,
    ) -> None:
        """
        Args:
            backbone: config.json of the encoder.
            separator: the special tokens between query and document; None where token types tell
                the two apart.
        """
        super().__init__(**settings)
        self.separator = separator
        self.take_backbone(backbone or {})

    def take_backbone(self, backbone: dict[str, Any]) -> None:
        """Set the encoder's config.json, with the sizes that others look for."""
        self.backbone = {key: value for key, value in backbone.items() if key != "_name_or_path"}
        for name in _MIRRORED:
            if name in self.backbone:
                setattr(self, name, self.backbone[name])

    def of_backbone(self) -> Any:
        """The backbone's own configuration."""
        return CONFIG_MAPPING[self.backbone["model_type"]].from_dict(self.backbone)


class Scale(nn.Module):
    """The factor of the cosine.

    Its weight has the name of a plain classifier's and another shape: a library that takes the
    checkpoint for a plain classifier fails on it, instead of drawing a head at random.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), SCALE))


class SimilarityForSequenceClassification(PreTrainedModel):  # type: ignore[misc]
    """score = scale * cos(mean state of [CLS] query [SEP], mean state of document [SEP]).

    The encoder reads the pair jointly, so that the states of each text know the other text.
    """

    config_class = SimilarityConfig
    base_model_prefix = "encoder"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: SimilarityConfig) -> None:
        super().__init__(config)
        kernel = getattr(config, "_attn_implementation", None)
        self.encoder = AutoModel.from_config(config.of_backbone(), attn_implementation=kernel)
        if hasattr(self.encoder, "pooler"):
            self.encoder.pooler = None
        self.classifier = Scale()
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Scale):
            nn.init.constant_(module.weight, SCALE)

    def get_input_embeddings(self) -> nn.Module:
        embeddings: nn.Module = self.encoder.get_input_embeddings()
        return embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.encoder.set_input_embeddings(value)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **options: Any,
    ) -> SequenceClassifierOutput:
        """Scores as `logits` [pairs, 1] in float32.

        Args:
            input_ids: [pairs, tokens].
        """
        options.pop("labels", None)
        options.pop("return_dict", None)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None and self.config.separator is None:
            inputs["token_type_ids"] = token_type_ids
        output = self.encoder(**inputs, **options)
        states = output.last_hidden_state
        is_document = in_document(input_ids, token_type_ids, self.config.separator)
        with torch.autocast(states.device.type, enabled=False):  # bf16 scores have three digits
            read = attention_mask.bool()
            query = _mean(states.float(), read & ~is_document)
            document = _mean(states.float(), read & is_document)
            scores = self.classifier.weight.float() * nn.functional.cosine_similarity(
                query, document, dim=-1
            )
        return SequenceClassifierOutput(
            logits=scores.unsqueeze(-1), hidden_states=output.hidden_states
        )


def in_document(
    input_ids: Tensor, token_type_ids: Tensor | None, separator: list[int] | None
) -> Tensor:
    """Which tokens follow the first separator, or have the second token type; [pairs, tokens].

    Raises:
        ValueError: the model needs token types and the input has none.
    """
    if separator is not None:
        first = (input_ids == separator[0]).int().argmax(dim=1, keepdim=True)
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        return places >= first + len(separator)
    if token_type_ids is None:
        raise ValueError("expected token_type_ids, found none; they tell query from document")
    return token_type_ids > 0


def _mean(states: Tensor, chosen: Tensor) -> Tensor:
    weights = chosen.unsqueeze(-1).float()
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)
