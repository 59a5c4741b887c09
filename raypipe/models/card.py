"""The model card of a trained model: README.md as the Hugging Face hub reads it.

Tests execute the code that a card shows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from raypipe.models import retriever_card
from raypipe.models.distillation import Distillation
from raypipe.models.retriever_card import VectorFacts
from raypipe.names import markdown_cell, markdown_code, markdown_text

if TYPE_CHECKING:
    from huggingface_hub import ModelCard, ModelCardData


Form = Literal["transformers", "onnx"]
"""What the folder holds: a Hugging Face directory, or model.onnx and tokenizer.json."""
_LOCAL = re.compile("(beir|files|msmarco|trec|training):")
"""Data sets in files of a machine."""
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
    text: str | None = None
    """How a document's text was made of columns, as `{title} | {body}`; None of plain texts."""
    interpolation: Mapping[str, Any] | None = None
    """What the model's scores are mixed with: see `Best.interpolation`; None of a model alone."""
    vectors: VectorFacts | None = None
    """Of a bi-encoder; None of a cross-encoder."""


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
        *(f"{title}\n\n{_fenced(code, kind)}" for title, code, kind in _examples(folder, facts)),
        *([] if facts.vectors is None else [retriever_card.vectors_in_words(facts.vectors)]),
        *([] if facts.text is None else [_made_of_columns(facts)]),
        *([_LOADERS] if (facts.head, facts.form) == ("similarity", "transformers") else []),
        *([] if facts.interpolation is None else [_interpolation(facts, facts.interpolation)]),
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
    local = dataset.startswith("pydoc") or _LOCAL.match(dataset)
    return None if local or not re.fullmatch(r"[\w.-]+/[\w.-]{1,91}", name) else name


def _metadata(facts: CardFacts) -> ModelCardData:
    from huggingface_hub import ModelCardData

    libraries = {"onnx": ["onnx"], "transformers": ["sentence-transformers", "transformers"]}[
        facts.form
    ]
    trained_on = dict.fromkeys(q.dataset for q in facts.queries if q.role == "train")
    datasets = [name for dataset in trained_on if (name := hub_dataset(dataset))] or None
    if facts.vectors is not None:
        return ModelCardData(**retriever_card.metadata(facts.base_model), datasets=datasets)
    return ModelCardData(
        library_name=libraries[0],
        pipeline_tag="text-ranking",
        base_model=facts.base_model,
        datasets=datasets,
        tags=[*libraries, "cross-encoder", "reranker", "raypipe"],
    )


def _examples(folder: str, facts: CardFacts) -> list[tuple[str, str, str]]:
    """(sentence, code, its language): first the lines that all ways share, then one block for each
    way.

    Each block leaves one score per document in `scores`.
    """
    columns = list((facts.interpolation or {}).get("columns", ()))
    lines = "".join(f"{name} = [2.5, 1.0]  # one per document\n" for name in columns)
    pairs = _PAIRS.format(folder=json.dumps(folder)) + lines
    if facts.form == "onnx":
        return [
            ("`folder` is this directory:", pairs, "python"),
            (
                "onnxruntime, with the library tokenizers (`pip install onnxruntime tokenizers`); "
                "no torch is needed:",
                _ONNX,
                "python",
            ),
        ]
    if facts.vectors is not None:
        shared = ("`folder`: this directory, or its name on the hub:", pairs, "python")
        return [shared, *retriever_card.examples(facts.vectors)]
    trust = ", trust_remote_code=True" if facts.head == "similarity" else ""
    given = "".join(f', "{name}": {name}' for name in columns)
    return [
        ("For all of them (`folder`: this directory, or its name on the hub):", pairs, "python"),
        ("transformers:", _TRANSFORMERS.format(trust=trust), "python"),
        ("sentence-transformers:", _SENTENCE_TRANSFORMERS.format(trust=trust), "python"),
        (
            "mlflow.pyfunc, which cuts long pairs exactly as in training (`folder` must be local):",
            _PYFUNC.format(columns=given),
            "python",
        ),
    ]


def _made_of_columns(facts: CardFacts) -> str:
    """How a document's text was made, in words and as code for one row."""
    text = str(facts.text)
    does = (
        "The pyfunc takes the columns instead of `text`."
        if facts.vectors is None
        else "`raypipe retrieve` makes it alike of files with these columns."
    )
    code = f"""\
row = {{name: "" for name in {re.findall(r"{([^{}]*)}", text)!r}}}  # a document's columns
text = {text!r}.format_map(row).strip()
"""
    return (
        "A document's text was made of columns, empty ones as empty text; serve it made alike. "
        f"{does}\n\n{_fenced(code, 'python')}"
    )


def _interpolation(facts: CardFacts, mix: Mapping[str, Any]) -> str:
    """How the scores are mixed: in words, and as code that goes on from another library's."""
    libraries = (
        "The pyfunc mixes them itself, if it gets all documents of a query in one call; "
        "transformers and sentence-transformers give the model's own `scores`, to be mixed so:"
        if facts.vectors is None
        else "sentence-transformers gives the model's own `scores`, to be mixed so:"
    )
    cosine = ""
    if "encoder" in mix:
        encoder = markdown_code(mix["encoder"])
        cosine = f", `cosine` the cosine of the vectors of {encoder}, untrained"
    words = (
        "**The results below are of a mix**: the model's scores and those of its first stage, "
        f"{markdown_code(mix['first_stage'])}, each as z-scores over the first {mix['depth']} "
        "documents of a query; validation queries chose the weight. `first_stage_score` is what "
        f"the first stage gave each document{cosine}. {libraries}"
    )
    shares = " + ".join(f"{share:g} * z({name})" for name, share in mix["columns"].items())
    weight = mix["weight"]
    code = _MIXED.format(weight=weight, rest=1 - weight, others=shares)
    return f"{words}\n\n{_fenced(code, 'python')}"


def _description(facts: CardFacts) -> str:
    count = f"{len(facts.stages)} stage{'' if len(facts.stages) == 1 else 's'}"
    stages = " -> ".join(map(markdown_code, facts.stages))
    approximation = "" if facts.distillation is None else f"\n\n{facts.distillation.sentence}"
    pairs = (
        "A cross-encoder for re-ranking: it reads a query and a document together and returns one "
        "score, higher is better."
    )
    kind = pairs if facts.vectors is None else retriever_card.description(facts.vectors)
    return (
        f"{kind} Trained with raypipe from "
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
    if not _LOCAL.match(dataset):
        return dataset
    return re.sub(r"(?<=[:=])(?:~[^,=]*/|/(?:[^,=]*/)?)", "", dataset.rstrip("/"))


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
    reads = (
        f"It reads {facts.reads}. {cuts[str(facts.truncation['type'])]}"
        if facts.vectors is None
        else retriever_card.limit(facts.vectors, facts.reads)
    )
    among = (
        "Only the documents that a first stage found are re-ranked"
        if facts.vectors is None
        else "Rows without `retrieving` re-rank what a first stage found"
    )
    lines = [
        reads,
        "It was trained and judged on the data above only: languages and domains that are not "
        "there were never tested.",
        f"{among}, and what people judged is incomplete.",
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
