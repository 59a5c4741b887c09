"""Data set ids, and the data sets of ir_datasets; the only module that imports it.

    any ir_datasets id      beir/scifact/test; split must be absent, the id names it
    beir:/abs/folder        corpus.jsonl[.gz], queries.jsonl[.gz], qrels/SPLIT.tsv
    msmarco:/abs/folder     collection.tsv, queries.SPLIT.tsv, qrels.SPLIT.tsv
    trec:/abs/folder        collection*, topics*, qrels*; or trec:collection=,topics=,qrels=
    files:corpus=,queries=  files of any place: own_files; with clicks=, a log of them
    training:/abs/file      a training file with texts: training_file
    pydoc, pydoc:PKG,PKG    docstrings of the installed packages; splits train, validation, test
    pydoc:installed         of every package of the environment

`docstore` stores the documents, `queries` chooses among the queries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from raypipe.config import ConfigError, nearest
from raypipe.datasets.beir import BeirFolder
from raypipe.datasets.clicks import Clicks, has_clicks
from raypipe.datasets.dataset import Beginning, Dataset, file_safe
from raypipe.datasets.own_files import OwnFiles
from raypipe.datasets.own_folders import msmarco, trec
from raypipe.datasets.pydoc import PyDoc
from raypipe.datasets.training_file import TrainingFileData

_AUTHORS = re.compile(r"(?i)(\bauthor\s*=\s*[{\"])([^{}\"]+)([}\"])")
UNSPACED_LANGUAGES = ("zh", "ja", "th", "lo", "my", "km")


def open_dataset(
    dataset: str, split: str | None = None, *, documents_only: bool = False
) -> Dataset:
    """The data set behind an id. Nothing is read yet: call `check()` before work.

    Args:
        documents_only: neither split nor queries are needed, and none may be read.

    Raises:
        ConfigError: unknown ir_datasets id, split missing, unknown or given where the id names it.
    """
    head, colon, rest = dataset.partition(":")
    if head == "pydoc":
        packages = [part.strip() for part in rest.split(",") if part.strip()]
        if colon and not packages:
            raise ConfigError(
                f"dataset {dataset!r}: expected package names, as in pydoc:json,numpy"
            )
        return PyDoc(split or ("train" if documents_only else None), packages or None)
    if head == "msmarco" and colon:
        return msmarco(rest, split)
    if head == "trec" and colon and "=" not in rest:
        return trec(rest, split)
    if head in ("files", "trec") and colon:
        if split is not None:
            raise ConfigError(f"dataset {dataset}: files have no split {split!r}; leave it out")
        if has_clicks(dataset):
            return Clicks(dataset)
        return OwnFiles(dataset, documents_only=documents_only)
    if head == "training" and colon:
        if split is not None:
            raise ConfigError(f"dataset {dataset}: a file has no split {split!r}; leave it out")
        return TrainingFileData(dataset)
    if head == "beir" and colon:
        return BeirFolder(rest, split or ("none" if documents_only else None))
    if split is not None:
        IrDataset(dataset)  # an id that does not exist is the first thing to say
        raise ConfigError(
            f"dataset {dataset!r} with split {split!r}: an ir_datasets id names its split itself, "
            f"as in {dataset.rstrip('/')}/{split}; leave the split out"
        )
    return IrDataset(dataset)


def bibliography(dataset: str) -> dict[str, str]:
    """Key -> BibTeX of the works that ir_datasets names for one of its ids; empty for others."""
    from importlib.resources import files

    name, *parts = dataset.split("/")
    pages = files("ir_datasets") / "docs"
    page = pages / f"{name}.yaml"
    if not re.fullmatch(r"[\w-]+", name) or not page.is_file():
        return {}
    sections = yaml.safe_load(page.read_text("utf-8"))
    names = ["_", *("/".join(parts[:end]) for end in range(1, len(parts) + 1))]
    keys = [key for name in names for key in (sections.get(name) or {}).get("bibtex_ids") or ()]
    text = (pages / "bibliography.bib").read_text("utf-8")
    entries = re.findall(r"^(@\w+\{([^,\s]+),.*?)(?=^@|\Z)", text, re.MULTILINE | re.DOTALL)
    by_key = {key: entry.strip() for entry, key in entries}
    return {key: _AUTHORS.sub(_with_and, by_key[key]) for key in keys if key in by_key}


def _with_and(match: re.Match[str]) -> str:
    """Authors with ` and ` between them: of several commas BibTeX makes an error."""
    people = re.split(r",\s+and\s+|\s+and\s+|,\s+", match[2].strip())
    several = match[2].count(",") > 1 and all(" " in person.strip() for person in people)
    return f"{match[1]}{' and '.join(people)}{match[3]}" if several else match[0]


class IrDataset(Dataset):
    """A data set of the ir_datasets library; files are fetched on first use, into its own cache."""

    public = True

    def __init__(self, dataset_id: str) -> None:
        import ir_datasets

        try:
            self._data = ir_datasets.load(dataset_id)
        except KeyError:
            near = nearest(dataset_id, ir_datasets.registry)
            if near.startswith("; valid"):  # a list of all 790 ids
                near = (
                    "; the ids are at https://ir-datasets.com, and beir:/folder and pydoc work too"
                )
            raise ConfigError(f"ir_datasets has no dataset {dataset_id!r}{near}") from None
        self.dataset_id = dataset_id
        self.name = file_safe(dataset_id)
        parent = ir_datasets.docs_parent_id(dataset_id) if self._data.has_docs() else dataset_id
        self._docs_id: str = parent
        self.docs_name = file_safe(parent)

    def check(self, queries: bool = True) -> None:
        """Check that the id has documents, queries and qrels with the fields that are read."""
        for kind in ("docs", "qrels", "queries") if queries else ("docs",):
            if not self._data.has(kind):
                raise ConfigError(f"dataset {self.dataset_id} has no {kind}{self._below(kind)}")
        self._check_fields("docs", "text")
        if queries:
            self._check_fields("queries", "text")
            self._check_fields("qrels", "relevance")

    @property
    def unspaced(self) -> bool:
        """By the language that the library names: nothing is fetched."""
        return self._data.docs_lang() in UNSPACED_LANGUAGES

    def beginning(self, count: int) -> Beginning | None:
        """As of any data set, if the library has the documents in its cache."""
        try:
            path = Path(self._data.docs_handler().docs_path(force=False))
        except Exception:  # handlers differ in what they have and take
            return None
        return super().beginning(count) if path.exists() else None

    def docs_identity(self) -> dict[str, Any]:
        """The id that owns the documents, and the library's version."""
        import ir_datasets

        return {"ir_datasets": ir_datasets.__version__, "docs": self._docs_id}

    def identity(self) -> dict[str, Any]:
        """The id itself beside `docs_identity`."""
        return {**self.docs_identity(), "dataset": self.dataset_id}

    def docs(self) -> Iterator[tuple[str, str]]:
        """Every document's default text (title and text where it has both)."""
        self.check(queries=False)
        for doc in self._data.docs_iter():
            yield doc.doc_id, _text(doc)

    def titles(self) -> Iterator[tuple[str, str]]:
        """The `title` of every document that has one."""
        self.check(queries=False)
        for doc in self._data.docs_iter():
            if title := (getattr(doc, "title", None) or "").strip():
                yield doc.doc_id, title

    def queries(self) -> Iterator[tuple[str, str]]:
        """Every query's default text: a TREC topic's title."""
        self.check()
        for query in self._data.queries_iter():
            yield query.query_id, _text(query)

    def qrels(self) -> Iterator[tuple[str, str, int]]:
        """Every judgement, in the library's order."""
        self.check()
        for qrel in self._data.qrels_iter():
            try:
                yield qrel.query_id, qrel.doc_id, int(qrel.relevance)
            except ValueError:
                raise ConfigError(
                    f"dataset {self.dataset_id}, query {qrel.query_id}, document {qrel.doc_id}: "
                    f"expected an integer relevance, found {qrel.relevance!r}; write the data set "
                    "as a folder for beir:/folder with integers"
                ) from None

    def scoreddocs(self) -> Iterator[tuple[str, str, float]]:
        """Lists in the library's order; those without scores (MS MARCO's top 1000) have 0s."""
        self._check_shipped("scoreddocs", ("query_id", "doc_id", "score"))
        return ((d.query_id, d.doc_id, float(d.score)) for d in self._data.scoreddocs_iter())

    def first_scoreddocs(self, count: int) -> list[tuple[str, str, float]] | None:
        """As of any data set, if the library has the lists in its cache."""
        rows = self.scoreddocs()  # whether there are any
        try:
            path = Path(self._data.scoreddocs_handler().scoreddocs_path(force=False))
        except Exception:  # handlers differ in what they have and take
            return None
        return list(islice(rows, count)) if path.exists() else None

    def docpairs(self) -> Iterator[tuple[str, str, str]]:
        """Training triples in the library's order; document a is the relevant document."""
        self._check_shipped("docpairs", ("query_id", "doc_id_a", "doc_id_b"))
        return ((p.query_id, p.doc_id_a, p.doc_id_b) for p in self._data.docpairs_iter())

    def count(self, kind: str) -> int | None:
        """The library's own metadata about the number; None where there is none."""
        number: int | None = (self._data.metadata().get(kind) or {}).get("count")
        return number

    def _check_fields(self, kind: str, field: str) -> None:
        cls = getattr(self._data, f"{kind}_cls")()
        if not hasattr(cls, "default_text") and field not in cls._fields:
            raise ConfigError(
                f"dataset {self.dataset_id}: expected {kind} with a field {field!r}, found "
                f"{', '.join(cls._fields)}; write them as a folder for beir:/folder"
            )

    def _check_shipped(self, kind: str, fields: tuple[str, ...]) -> None:
        if not self._data.has(kind):
            raise ConfigError(f"dataset {self.dataset_id} has no {kind}{self._below(kind)}")
        names = getattr(self._data, f"{kind}_cls")()._fields
        if missing := set(fields) - set(names):
            raise ConfigError(
                f"dataset {self.dataset_id}: expected {kind} with the fields {', '.join(fields)}, "
                f"found {', '.join(names)}; {', '.join(sorted(missing))} cannot be read, name "
                "another id"
            )

    def _below(self, kind: str, limit: int = 12) -> str:
        """The end of a sentence: ids below this one that have what this one lacks."""
        import ir_datasets

        below = [i for i in sorted(ir_datasets.registry) if i.startswith(f"{self.dataset_id}/")]
        having = [i for i in below if ir_datasets.load(i).has(kind)]
        if not having:
            return "; no id below it has them either, name another data set"
        more = f" and {len(having) - limit} more" if len(having) > limit else ""
        return f"; ids with {kind} below it: {', '.join(having[:limit])}{more}"


def _text(record: Any) -> str:
    """A record's default text, or title and text: some types (bright, codesearchnet) lack the
    default, and `check` has seen their `text`."""
    if hasattr(record, "default_text"):
        return (record.default_text() or "").strip()
    return f"{getattr(record, 'title', '') or ''} {record.text or ''}".strip()
