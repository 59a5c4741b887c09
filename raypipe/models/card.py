"""The model card of a cross-encoder: README.md as the Hugging Face hub reads it.

Tests execute the code that a card shows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from raypipe.models.distillation import Distillation
from raypipe.names import markdown_cell, markdown_code, markdown_text

if TYPE_CHECKING:
    from huggingface_hub import ModelCard, ModelCardData


Form = Literal["transformers", "onnx"]
"""What the folder holds: a Hugging Face directory, or model.onnx and tokenizer.json."""
_NO_VALUE = "–"  # noqa: RUF001 - an en dash, as tables print it

_PAIRS = """\
folder = {folder}
query = "what do bees eat"
documents = ["Bees feed on nectar and pollen.", "A hive is home to thousands of bees."]
"""

_TRANSFORMERS = """\
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder{trust}).eval()
pairs = [query] * len(documents), documents
inputs = tokenizer(*pairs, truncation=True, padding=True, return_tensors="pt")
with torch.inference_mode():
    scores = model(**inputs).logits[:, 0].tolist()
"""

_SENTENCE_TRANSFORMERS = """\
from sentence_transformers import CrossEncoder

model = CrossEncoder(folder{trust})
scores = model.predict([(query, document) for document in documents])
best_first = model.rank(query, documents)
"""

_PYFUNC = """\
import tempfile
from pathlib import Path

import mlflow
import pandas as pd
from raypipe.tracking import save_pyfunc

target = Path(tempfile.mkdtemp()) / "reranker"
save_pyfunc(target, Path(folder))
model = mlflow.pyfunc.load_model(str(target))  # needs no raypipe any more
pairs = pd.DataFrame({{"query": query, "text": documents{columns}}})
scores = model.predict(pairs)["score"].tolist()
"""

_ONNX = """\
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")  # cuts and pads
tokenizer.encode_special_tokens = True  # "[SEP]" in a text is text
session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
pairs = tokenizer.encode_batch([(query, document) for document in documents])
inputs = {
    "input_ids": [pair.ids for pair in pairs],
    "attention_mask": [pair.attention_mask for pair in pairs],
    "token_type_ids": [pair.type_ids for pair in pairs],
}
names = [entry.name for entry in session.get_inputs()]
arrays = {name: np.array(inputs[name], dtype=np.int64) for name in names}
scores = session.run(["score"], arrays)[0].tolist()
"""

_MIXED = """\
import numpy as np


def z(values):
    values = np.asarray(values, dtype=float)
    return (values - values.mean()) / values.std() if np.ptp(values) else 0 * values


mixed = {weight:g} * z(scores) + {rest:g} * z({others})
best_first = np.argsort(-mixed, kind="stable")
"""

_LOADERS = """\
The score is `scale * cos(query, document)`, of the mean token states of both texts, read together.
No library has this head of its own:

| loaded by | runs the folder's `raypipe_similarity.py` | scores |
| --- | --- | --- |
| raypipe, and its mlflow.pyfunc | no, its own code | the same |
| transformers, sentence-transformers with `trust_remote_code=True` | yes | the same |
| transformers, sentence-transformers without it | no | an error |
| a plain classifier, such as BertForSequenceClassification | no | an error: other shapes |
"""
_CUTS = {
    "longest_first": (
        "Of a longer pair the longer side is cut first; what is cut never counts. All three ways "
        "to load do this."
    ),
    "budgets": (
        "What is beyond never counts. transformers and sentence-transformers cut a pair only when "
        "both together are too long, so longer queries or documents score differently there; the "
        "pyfunc cuts as in training."
    ),
    "max_p": (
        "A document scores as its best passage. transformers and sentence-transformers read one "
        "passage, the beginning: score passages one by one and keep the highest, or use the "
        "pyfunc, which does."
    ),
}
"""Type of a truncation to a sentence: how each way to load treats pairs that are too long."""
_ONNX_CUTS = {
    "longest_first": "Of a longer pair tokenizer.json cuts the longer side first, as in training.",
    "budgets": (
        "What is beyond never counts. tokenizer.json cuts a pair only when both together are too "
        "long: cut longer queries and documents before."
    ),
    "max_p": (
        "A document scores as its best passage, and model.onnx reads one passage: score passages "
        "one by one and keep the highest."
    ),
}


@dataclass(frozen=True)
class QueryFacts:
    """One query set of the recipe."""

    role: str
    """train, validation or test."""
    dataset: str
    """The recipe's name of the data set; the card shows only the last folder of a path."""
    split: str | None
    queries: int
    documents: int


@dataclass(frozen=True)
class GroupFacts:
    """One training set."""

    stages: tuple[str, ...]
    """Names of the stages that train on the set."""
    groups: int
    pairs: int
    """Query-document pairs per epoch."""
    digest: str
    """The digest of the groups artifact: two models with the same digest saw the same groups."""


@dataclass(frozen=True)
class CardFacts:
    """All facts that a card states."""

    name: str
    backbone: str
    """Readable name of the pretrained model."""
    base_model: str | None
    """The backbone's name on the hub; None for local files, which the hub could not link to."""
    recipe: str
    """YAML without secrets, since cards are published."""
    stages: tuple[str, ...]
    """In training order."""
    queries: Sequence[QueryFacts]
    groups: Sequence[GroupFacts]
    metrics: Mapping[str, Mapping[str, float]]
    """By row of the results table, such as `validation` or `test, first stage`: the mean of each
    measure."""
    truncation: Mapping[str, Any]
    """The recipe's `truncation` as JSON values."""
    reads: str
    """The truncation in words: `truncation.reads`."""
    versions: Mapping[str, str]
    """Versions of the libraries that results depend on."""
    head: str = "classifier"
    """classifier or similarity, of the model that the folder holds: see `CrossEncoder.head`."""
    form: Form = "transformers"
    distillation: Distillation | None = None
    """Of a classifier that approximates a similarity head."""
    interpolation: Mapping[str, Any] | None = None
    """What the model's scores are mixed with: see `Best.interpolation`; None of a model alone."""


def card(facts: CardFacts, folder: str = ".") -> ModelCard:
    """The card of one checkpoint.

    Args:
        folder: the checkpoint's directory, as the code blocks name it; the default is the directory
            that holds the card.
    """
    from huggingface_hub import ModelCard

    parts = [
        f"---\n{_metadata(facts).to_yaml()}\n---",
        f"# {markdown_text(facts.name)}",
        _description(facts),
        "## How to load",
        *(f"{title}\n\n{_fenced(code, 'python')}" for title, code in _examples(folder, facts)),
        *([_LOADERS] if (facts.head, facts.form) == ("similarity", "transformers") else []),
        *([] if facts.interpolation is None else [_interpolation(facts.interpolation)]),
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
    return ModelCard("\n\n".join(parts) + "\n")


def hub_dataset(dataset: str) -> str | None:
    """The hub's name of an ir_datasets id: `beir/scifact/train` is `irds/beir_scifact_train`.

    None for folders, for the built-in collection and for ids that the hub allows as no name.
    """
    name = f"irds/{dataset.replace('/', '_')}"
    local = dataset.startswith(("beir:", "pydoc"))
    return None if local or not re.fullmatch(r"[\w.-]+/[\w.-]{1,91}", name) else name


def _metadata(facts: CardFacts) -> ModelCardData:
    from huggingface_hub import ModelCardData

    libraries = {"onnx": ["onnx"], "transformers": ["sentence-transformers", "transformers"]}[
        facts.form
    ]
    trained_on = dict.fromkeys(q.dataset for q in facts.queries if q.role == "train")
    return ModelCardData(
        library_name=libraries[0],
        pipeline_tag="text-ranking",
        base_model=facts.base_model,
        datasets=[name for dataset in trained_on if (name := hub_dataset(dataset))] or None,
        tags=[*libraries, "cross-encoder", "reranker", "raypipe"],
    )


def _examples(folder: str, facts: CardFacts) -> list[tuple[str, str]]:
    """(sentence, Python code): first the lines that all ways share, then one block for each way.

    Each block leaves one score per document in `scores`.
    """
    columns = list((facts.interpolation or {}).get("columns", ()))
    lines = "".join(f"{name} = [2.5, 1.0]  # one per document\n" for name in columns)
    pairs = _PAIRS.format(folder=json.dumps(folder)) + lines
    if facts.form == "onnx":
        return [
            ("`folder` is this directory:", pairs),
            (
                "onnxruntime, with the library tokenizers (`pip install onnxruntime tokenizers`); "
                "no torch is needed:",
                _ONNX,
            ),
        ]
    trust = ", trust_remote_code=True" if facts.head == "similarity" else ""
    given = "".join(f', "{name}": {name}' for name in columns)
    return [
        ("For all of them (`folder`: this directory, or its name on the hub):", pairs),
        ("transformers:", _TRANSFORMERS.format(trust=trust)),
        ("sentence-transformers:", _SENTENCE_TRANSFORMERS.format(trust=trust)),
        (
            "mlflow.pyfunc, which cuts long pairs exactly as in training (`folder` must be local):",
            _PYFUNC.format(columns=given),
        ),
    ]


def _interpolation(mix: Mapping[str, Any]) -> str:
    """How the scores are mixed: in words, and as code that goes on from another library's."""
    cosine = ""
    if "encoder" in mix:
        encoder = markdown_code(mix["encoder"])
        cosine = f", `cosine` the cosine of the vectors of {encoder}, untrained"
    words = (
        "**The results below are of a mix**: the model's scores and those of its first stage, "
        f"{markdown_code(mix['first_stage'])}, each as z-scores over the first {mix['depth']} "
        "documents of a query; validation queries chose the weight. `first_stage_score` is what "
        f"the first stage gave each document{cosine}. The pyfunc mixes them itself, if it gets all "
        "documents of a query in one call; transformers and sentence-transformers give the model's "
        "own `scores`, to be mixed so:"
    )
    shares = " + ".join(f"{share:g} * z({name})" for name, share in mix["columns"].items())
    weight = mix["weight"]
    code = _MIXED.format(weight=weight, rest=1 - weight, others=shares)
    return f"{words}\n\n{_fenced(code, 'python')}"


def _description(facts: CardFacts) -> str:
    count = f"{len(facts.stages)} stage{'' if len(facts.stages) == 1 else 's'}"
    stages = " -> ".join(map(markdown_code, facts.stages))
    approximation = "" if facts.distillation is None else f"\n\n{facts.distillation.sentence}"
    return (
        "A cross-encoder for re-ranking: it reads a query and a document together and returns one "
        "score, higher is better. Trained with raypipe from "
        f"{markdown_code(facts.backbone)} in {count}: {stages}.\n\n"
        "Scores order the documents of one query. They are no probabilities and are not comparable "
        "between queries."
        f"{approximation}"
    )


def _data(facts: CardFacts) -> str:
    sets = [
        (q.role, _without_folders(q.dataset), q.split or _NO_VALUE, q.queries, q.documents)
        for q in facts.queries
    ]
    groups = [(", ".join(g.stages), g.groups, g.pairs, g.digest) for g in facts.groups]
    return "\n\n".join(
        [
            _table(["", "data set", "split", "queries", "documents"], sets, left=3),
            "A group is one query with its positive and negative documents; models with the same "
            "digest were trained on the same groups.",
            _table(["stages", "groups", "pairs per epoch", "digest"], groups, left=1),
        ]
    )


def _without_folders(dataset: str) -> str:
    """The data set without the folders above it: a card publishes no path of somebody's machine."""
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
    cuts = _ONNX_CUTS if facts.form == "onnx" else _CUTS
    lines = [
        f"It reads {facts.reads}. {cuts[str(facts.truncation['type'])]}",
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
    lines = [f"| {' | '.join(map(markdown_cell, heads))} |", f"|{rule}|"]
    for row in rows:
        cells = (f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row)
        lines.append(f"| {' | '.join(map(markdown_cell, cells))} |")
    return "\n".join(lines)
