"""The model card of a cross-encoder: README.md as the Hugging Face hub reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from raypipe.models.card_examples import CUTS, examples

_NO_VALUE = "–"  # noqa: RUF001 - an en dash, as tables print it


@dataclass(frozen=True)
class QueryFacts:
    """One query set of the recipe."""

    role: str
    """train, validation or test."""
    dataset: str
    """As in the recipe; of a path only the last folder is shown."""
    split: str | None
    queries: int
    documents: int


@dataclass(frozen=True)
class GroupFacts:
    """One training set."""

    stages: tuple[str, ...]
    """Which of them train on it."""
    groups: int
    pairs: int
    """Query-document pairs per epoch."""
    digest: str
    """Of the groups artifact: two models with the same digest saw the same groups."""


@dataclass(frozen=True)
class CardFacts:
    """All that a card says."""

    name: str
    backbone: str
    """Readable name of what was fine-tuned."""
    base_model: str | None
    """Its name on the hub; None for local files, which the hub could not link to."""
    recipe: str
    """YAML, without secrets: it is published."""
    stages: tuple[str, ...]
    """In training order."""
    queries: Sequence[QueryFacts]
    groups: Sequence[GroupFacts]
    metrics: Mapping[str, Mapping[str, float]]
    """Row of the results table, such as `validation` or `test, first stage`, to measure to mean."""
    truncation: Mapping[str, Any]
    """The recipe's `truncation` as JSON values."""
    reads: str
    """The same in words: `truncation.reads`."""
    versions: Mapping[str, str]
    """Of the libraries that results depend on."""


def card(facts: CardFacts, folder: str = ".") -> str:
    """Markdown with a YAML head.

    Args:
        folder: where the checkpoint is, as the code blocks name it; the default is the directory
            that holds the card.
    """
    parts = [
        f"---\n{_head(facts)}---",
        f"# {' '.join(facts.name.split())}",
        _what(facts),
        "## How to load",
        *(f"{says}\n\n{_fenced(code, 'python')}" for says, code in examples(folder)),
        "## Data",
        _data(facts),
        "## Results",
        _results(facts.metrics),
        "## Training recipe",
        _fenced(facts.recipe, "yaml"),
        "## Limits",
        _limits(facts),
        "## Versions",
        ", ".join(f"{name} {version}" for name, version in facts.versions.items()),
    ]
    return "\n\n".join(parts) + "\n"


def hub_dataset(dataset: str) -> str | None:
    """Where the hub has an ir_datasets id: `beir/scifact/train` is `irds/beir_scifact_train`.

    None for folders, for the built-in collection and for what cannot be a name there.
    """
    name = f"irds/{dataset.replace('/', '_')}"
    local = dataset.startswith(("beir:", "pydoc"))
    return None if local or not re.fullmatch(r"[\w.-]+/[\w.-]{1,91}", name) else name


def _head(facts: CardFacts) -> str:
    trained_on = [one.dataset for one in facts.queries if one.role == "train"]
    datasets = [name for one in dict.fromkeys(trained_on) if (name := hub_dataset(one))]
    head: dict[str, Any] = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "text-ranking",
        **({"base_model": facts.base_model} if facts.base_model else {}),
        **({"datasets": datasets} if datasets else {}),
        "tags": ["sentence-transformers", "transformers", "cross-encoder", "reranker", "raypipe"],
    }
    return yaml.safe_dump(head, sort_keys=False, allow_unicode=True)


def _what(facts: CardFacts) -> str:
    count = f"{len(facts.stages)} stage{'' if len(facts.stages) == 1 else 's'}"
    return (
        "A cross-encoder for re-ranking: it reads a query and a document together and returns one "
        f"score, higher is better. Trained with raypipe from `{facts.backbone}` in {count}: "
        f"{' -> '.join(f'`{name}`' for name in facts.stages)}.\n\n"
        "Scores order the documents of one query. They are no probabilities and are not comparable "
        "between queries."
    )


def _data(facts: CardFacts) -> str:
    sets = [
        (one.role, _shown(one.dataset), one.split or _NO_VALUE, one.queries, one.documents)
        for one in facts.queries
    ]
    groups = [(", ".join(one.stages), one.groups, one.pairs, one.digest) for one in facts.groups]
    return "\n\n".join(
        [
            _table(["", "data set", "split", "queries", "documents"], sets, left=3),
            "A group is one query with its positive and negative documents; models with the same "
            "digest were trained on the same groups.",
            _table(["stages", "groups", "pairs per epoch", "digest"], groups, left=1),
        ]
    )


def _shown(dataset: str) -> str:
    """Without the folders above the data set: whose machine it was is nobody's business."""
    kind, colon, path = dataset.partition(":")
    return f"{kind}:{path.rstrip('/').split('/')[-1]}" if kind == "beir" and colon else dataset


def _results(metrics: Mapping[str, Mapping[str, float]]) -> str:
    measures = list(dict.fromkeys(name for values in metrics.values() for name in values))
    rows = [
        (row, *(f"{values[m]:.4f}" if m in values else _NO_VALUE for m in measures))
        for row, values in metrics.items()
    ]
    note = (
        "Means over queries. The checkpoint was chosen on the validation queries, so figures on "
        "them flatter it; test queries chose nothing."
    )
    return f"{_table(['', *measures], rows, left=1)}\n\n{note}"


def _limits(facts: CardFacts) -> str:
    lines = [
        f"It reads {facts.reads}. {CUTS[str(facts.truncation['type'])]}",
        "It was trained and judged on the data above only: languages and domains that are not "
        "there were never tested.",
        "Only the documents that a first stage found are re-ranked, and what people judged is "
        "incomplete.",
        "Licence: not stated here. Those of the base model and of the data sets were not looked "
        "up; check them before the model is shared or sold.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _fenced(text: str, language: str) -> str:
    longest = max((len(ticks) for ticks in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]], left: int) -> str:
    """The first `left` columns are text, the others figures."""
    rule = "|".join(" --- " if i < left else " ---: " for i in range(len(heads)))
    lines = [f"| {' | '.join(heads)} |", f"|{rule}|"]
    for row in rows:
        cells = (f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)
