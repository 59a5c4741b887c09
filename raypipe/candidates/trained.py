"""Sources whose vectors a stage of the recipe trains: `{type: dense, of: STAGE}`."""

from __future__ import annotations

from collections.abc import Callable

from raypipe.candidates import Source
from raypipe.candidates.dense.source import Dense, DenseCandidates
from raypipe.candidates.fused import Fused
from raypipe.datasets.steps import Collection, Queries
from raypipe.inference.embeddings import Embeddings
from raypipe.inference.tokens import Tokens
from raypipe.models.backbone import Backbone
from raypipe.models.bi_encoder import BiEncoder
from raypipe.storage.artifacts import Step

EncoderOf = Callable[[str], tuple[BiEncoder, Step]]
"""Gives, of a stage's name, how its model reads texts, and the step that trains it."""


def no_stage(name: str) -> tuple[BiEncoder, Step]:
    """An `EncoderOf` where no recipe has stages."""
    raise AssertionError(f"expected a recipe that has the stage {name}, found none")


def stages_of(source: Source) -> tuple[str, ...]:
    """The stages whose models a source retrieves with."""
    if isinstance(source, Fused):
        return tuple(name for member in source.sources.values() for name in stages_of(member))
    return (source.of,) if isinstance(source, Dense) and source.of is not None else ()


def candidates_by(
    source: Source, collection: Collection, queries: Queries, precision: str, encoder: EncoderOf
) -> Step:
    """The step that retrieves, as `source.candidates`, with the stages that it names."""
    if isinstance(source, Fused):
        members = {
            name: candidates_by(member, collection, queries, precision, encoder)
            for name, member in source.sources.items()
        }
        return source.joined(members, queries)
    if isinstance(source, Dense) and source.of is not None:
        model, weights = encoder(source.of)
        own = {name: getattr(source, name) for name in ("depth", "exclude_query_id", "index")}
        by_model = Dense(**dict(model), **own, name=source.name)
        return retrieved_by(by_model, collection, queries, precision, weights)
    return source.candidates(collection, queries, precision)


def retrieved_by(
    source: Dense, collection: Collection, queries: Queries, precision: str, weights: Step | None
) -> Step:
    """The step that retrieves with trained weights, over token stores made with the prefixes.

    Args:
        source: names the backbone.
        weights: a stage that began with the backbone; None is the backbone as it comes.
    """
    backbone = Backbone(source.backbone)
    query, doc = source.prefixes(backbone.published)
    tokens = Tokens(collection, backbone, doc), Tokens(queries, backbone, query)
    docs, asked = (Embeddings(of, source, precision, weights) for of in tokens)
    return source.cut(DenseCandidates(source, docs, asked))
