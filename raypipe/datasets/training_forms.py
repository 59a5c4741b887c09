"""Training files of other libraries as rows: what one line of each form says.

    FlagEmbedding           {query, pos[], neg[], pos_scores[], neg_scores[]}
    Tevatron, RLHN          {query_id, query, positive_passages[], negative_passages[]} of passages
                            {docid, title, text}; {query_id, query, passages[], scores[]}, the first
                            the positive; or ids: {query_id, query_text, positive_document_ids[],
                            negative_document_ids[]}
    sentence-transformers   columns (anchor, positive, negative or negative_1..n);
                            (query, docs[], labels[] or scores[]); {qid, pos[], neg{system: []}} of
                            msmarco-hard-negatives
    ColBERT                 [query_id, pos_id, neg_id, ...], [query_id, [doc_id, score], ...], the
                            first the positive

Of lists that have scores alone, the document with the highest is the positive. `training_reader`
tells the form of a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from raypipe.names import quoted

ANCHORS = ("anchor", "query", "question", "sentence1")
READ = (
    "query/pos/neg (FlagEmbedding), query/positive_passages/negative_passages (Tevatron), "
    "anchor/positive/negative or query/docs/labels (sentence-transformers), qid/pos/neg "
    "(msmarco-hard-negatives), [query_id, pos_id, neg_id] or [query_id, [doc_id, score], ...] "
    "(ColBERT)"
)


class FileEntry(NamedTuple):
    """A query or a document of a training file; one of the two is there, or both."""

    text_id: str | None
    text: str | None


@dataclass(frozen=True)
class FileGroup:
    """What one line says."""

    place: str
    """FILE:LINE."""
    query: FileEntry
    docs: Sequence[FileEntry]
    """Positives first; a text may be empty."""
    positives: int
    scores: Sequence[float] | None = None
    """Of the documents, higher is better; None where the file has none."""


# --- one reader per form -------------------------------------------------------------------------


def _text(value: Any) -> FileEntry:
    if not isinstance(value, str):
        raise ValueError(f"expected text, found {quoted(value, 40)}")
    return FileEntry(None, value.strip())


def _id(value: Any) -> FileEntry:
    if type(value) is int:
        value = str(value)
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected an id, found {quoted(value, 40)}")
    return FileEntry(value, None)


def _list(value: Any) -> list[Any]:
    if isinstance(value, str | int):
        return [value]
    if not isinstance(value, list | None):
        raise ValueError(f"expected a list, found {quoted(value, 40)}")
    return value or []


def _numbers(values: Any, count: int, what: str) -> list[float]:
    numbers = _list(values)
    if len(numbers) != count:
        raise ValueError(f"expected {count} {what}, found {len(numbers)}")
    for number in numbers:
        if type(number) not in (int, float):
            raise ValueError(f"expected a number in {what}, found {quoted(number, 40)}")
    return [float(number) for number in numbers]


def _query(row: Mapping[str, Any], text: str, query_id: str = "query_id") -> FileEntry:
    found = row.get(query_id)
    return FileEntry(None if found is None else _id(found).text_id, _text(row[text]).text)


def _passage(value: Any) -> FileEntry:
    """A passage of Tevatron: an object, a text, or an id and text."""
    if isinstance(value, str):
        return _text(value)
    found = next((value[k] for k in ("docid", "doc_id", "_id", "id") if value.get(k)), None)
    parts = ((value.get(key) or "").strip() for key in ("title", "text"))
    text = _text(" ".join(filter(None, parts))).text
    return FileEntry(None if found is None else _id(found).text_id, text)


def _flag_embedding(place: str, row: Mapping[str, Any]) -> FileGroup:
    pos, neg = (list(map(_text, _list(row.get(key)))) for key in ("pos", "neg"))
    scores = None
    if row.get("pos_scores") is not None and row.get("neg_scores") is not None:
        scores = _numbers(row["pos_scores"], len(pos), "pos_scores")
        scores += _numbers(row["neg_scores"], len(neg), "neg_scores")
    return FileGroup(place, _query(row, "query"), [*pos, *neg], len(pos), scores)


def _tevatron(place: str, row: Mapping[str, Any]) -> FileGroup:
    keys = ("positive_passages", "negative_passages")
    pos, neg = (list(map(_passage, _list(row.get(key)))) for key in keys)
    return FileGroup(place, _query(row, "query"), [*pos, *neg], len(pos))


def _tevatron_ids(place: str, row: Mapping[str, Any]) -> FileGroup:
    keys = ("positive_document_ids", "negative_document_ids")
    pos, neg = (list(map(_id, _list(row.get(key)))) for key in keys)
    text = "query_text" if row.get("query_text") else "query"
    query = _query(row, text) if row.get(text) else _id(row["query_id"])
    return FileGroup(place, query, [*pos, *neg], len(pos))


def _tevatron_scores(place: str, row: Mapping[str, Any]) -> FileGroup:
    docs = list(map(_passage, _list(row["passages"])))
    scores = _numbers(row["scores"], len(docs), "scores")
    return FileGroup(place, _query(row, "query"), docs, 1, scores)


def _columns(place: str, row: Mapping[str, Any]) -> FileGroup:
    anchor = next(name for name in ANCHORS if name in row)
    pos = [_text(text) for text in _list(row["positive"])]
    names = [name for name in row if name == "negative" or name.startswith("negative_")]
    found = [text for name in names for text in _list(row[name])]
    return FileGroup(place, _query(row, anchor), [*pos, *map(_text, found)], len(pos))


def _labelled(place: str, row: Mapping[str, Any]) -> FileGroup:
    """Of labels, positives are those above 0; of scores alone, the highest."""
    anchor = next(name for name in ANCHORS if name in row)
    docs = [_text(text) for text in _list(row["docs"])]
    scores = None if row.get("scores") is None else _numbers(row["scores"], len(docs), "scores")
    if row.get("labels") is not None:
        is_positive = [label > 0 for label in _numbers(row["labels"], len(docs), "labels")]
    else:
        assert scores is not None
        best = max(range(len(docs)), key=scores.__getitem__, default=0)
        is_positive = [at == best for at in range(len(docs))]
    order = sorted(range(len(docs)), key=lambda at: not is_positive[at])
    ordered = None if scores is None else [scores[at] for at in order]
    query = _query(row, anchor)
    return FileGroup(place, query, [docs[at] for at in order], sum(is_positive), ordered)


def _hard_negatives(place: str, row: Mapping[str, Any]) -> FileGroup:
    """The negatives of all systems, each once, those that several found first in their order."""
    pos = list(map(_id, _list(row["pos"])))
    by_system = row["neg"].values() if isinstance(row["neg"], dict) else [row["neg"]]
    neg = dict.fromkeys(_id(doc_id) for found in by_system for doc_id in _list(found))
    return FileGroup(place, _id(row["qid"]), [*pos, *neg], len(pos))


def _id_tuple(place: str, row: Sequence[Any]) -> FileGroup:
    if len(row) < 3:
        raise ValueError(f"expected a query, a positive and a negative, found {len(row)} ids")
    query, *docs = map(_id, row)
    return FileGroup(place, query, docs, 1)


def _n_way(place: str, row: Sequence[Any]) -> FileGroup:
    docs = [_id(pair[0]) for pair in row[1:]]
    scores = _numbers([pair[1] for pair in row[1:]], len(docs), "scores")
    return FileGroup(place, _id(row[0]), docs, 1, scores)


def _has(*names: str) -> Callable[[Any], bool]:
    return lambda row: isinstance(row, Mapping) and all(row.get(name) is not None for name in names)


def _is_columns(row: Any) -> bool:
    return _has("positive")(row) and any(name in row for name in ANCHORS)


def _is_labelled(row: Any) -> bool:
    asked = isinstance(row, Mapping) and any(name in row for name in ANCHORS)
    return asked and (_has("docs", "labels")(row) or _has("docs", "scores")(row))


def _is_pairs(row: Any) -> bool:
    pairs = isinstance(row, list) and len(row) > 1
    return pairs and all(isinstance(pair, list) and len(pair) == 2 for pair in row[1:])


def _is_ids(row: Any) -> bool:
    return isinstance(row, list) and len(row) > 2 and all(isinstance(v, str | int) for v in row)


Shape = tuple[str, Callable[[Any], bool], Callable[[str, Any], FileGroup]]
"""Name of a form, whether a first line is of it, and the reader of its lines."""
SHAPES: tuple[Shape, ...] = (
    ("msmarco-hard-negatives", _has("qid", "pos", "neg"), _hard_negatives),
    ("FlagEmbedding", _has("query", "pos"), _flag_embedding),
    ("Tevatron", _has("query", "positive_passages"), _tevatron),
    ("Tevatron's ids", _has("positive_document_ids"), _tevatron_ids),
    ("Tevatron's distillation", _has("query", "passages", "scores"), _tevatron_scores),
    ("sentence-transformers columns", _is_columns, _columns),
    ("sentence-transformers lists", _is_labelled, _labelled),
    ("ColBERT n-way", _is_pairs, _n_way),
    ("ColBERT triples", _is_ids, _id_tuple),
)


def looks_like(value: Any) -> str:
    """What a first line of another kind is, and what to do with it."""
    names = set(value) if isinstance(value, Mapping) else set()
    if {"candidates", "query"} <= names or "retrieved_passages" in names or "hits" in names:
        return (
            "ranked lists of rank_llm or RankGPT: name them as candidates (type: trec_run) or as "
            "teacher (type: run_file, or rankgpt with its answers)"
        )
    if "messages" in names or "conversations" in names:
        return "chats, which have no documents to rank"
    if {"_id", "text"} <= names or {"id", "contents"} <= names:
        return "documents or queries: name them in a data set, files:corpus=FILE,queries=FILE"
    if names & {"label", "score", "labels"} and names & {*ANCHORS, "sentence2", "text"}:
        return (
            f"pairs with a label ({', '.join(sorted(names))}): write one line per query, with "
            "docs[] and labels[]"
        )
    if isinstance(value, list) and any(
        isinstance(part, list) and len(part) > 2 for part in value[1:]
    ):
        return (
            "lists whose documents have more than a score (PairDistill): write [doc_id, score], "
            "and the comparisons as a file of teacher duo_scores"
        )
    shown = f"the names {', '.join(sorted(map(str, names)))}" if names else quoted(value, 60)
    return f"lines of no known form ({shown})"
