"""A collection in files of any place: documents, queries and, if there are any, judgements.

The one-line ids `files:`, `trec:` and `msmarco:`, and the mapping that a recipe may have instead.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from raypipe.config import ConfigError, nearest
from raypipe.datasets.dataset import Dataset, begins_unspaced, file_safe
from raypipe.datasets.own_qrels import read_judgements
from raypipe.datasets.own_rows import Header, OwnRow, no_column, own_rows, table_files
from raypipe.datasets.trec_text import body_columns, is_trec, trec_docs, trec_topics
from raypipe.names import quoted
from raypipe.storage.files import file_checksum
from raypipe.tables.text_template import TextTemplate

HEADS = ("files:", "trec:")
FILES = ("corpus", "queries", "qrels")
PARTS: Mapping[str, str] = {
    "corpus": "documents: a file, a folder of parts, or a pattern with *",
    "queries": "queries, likewise",
    "qrels": "judgements: TREC qrels, BEIR's TSV, or a table; may be left out",
    "clicks": "a log of clicks in place of judgements: query, document, position, clicked",
    "least_impressions": "how often a clicked document must have been shown to be relevant",
    "text": "the document's text from columns, such as {title} | {brand} | {body}",
    "query": "the query's text from columns",
    "doc_id": "the column of document ids, where it has no usual name",
    "query_id": "the column of query ids, likewise",
    "relevance": "the column of relevance in a table of judgements, likewise",
}
"""Parts of an id, and what each is."""
SYNONYMS = {"collection": "corpus", "topics": "queries"}
IDS = ("_id", "id", "docid", "docno", "doc_id", "pid", "qid", "query_id", "query-id", "num")
TEXTS = ("text", "contents", "content", "body", "passage", "query", "question", "title")
"""Names of columns, the first that a row has; a title stands before the text."""
_POSITIONS = {2: ("id", "text"), 3: ("id", "title", "text"), 4: ("id", "url", "title", "text")}
"""Columns of a file without a header, by their number."""
_PART = re.compile(rf",(?=(?:{'|'.join([*PARTS, *SYNONYMS])})=)")
_COLUMNS = "2 to 4 tab-separated columns (id, [address,] [title,] text)"
Texts = tuple[OwnRow, str, str]
"""Row, id, text."""


def files_id(**parts: str | Path | None) -> str:
    """The one-line id of a data set in files, by part.

    Raises:
        ConfigError: a value holds what would begin another part of the id.
    """
    named = {part: str(value) for part, value in parts.items() if value is not None}
    for part, value in named.items():
        if _PART.search(value):
            raise ConfigError(f"{part} {value}: expected no ',PART=' within; rename the file")
    return HEADS[0] + ",".join(f"{part}={value}" for part, value in named.items())


def one_line(dataset: Any) -> Any:
    """The id of a data set that a recipe gives as a mapping of parts; others stay as they are.

    Raises:
        ConfigError: a part that does not exist, or a value that is no text.
    """
    if not isinstance(dataset, Mapping):
        return dataset
    for part, value in dataset.items():
        if part not in PARTS:
            raise ConfigError(f"there is no part {part!r} of a data set{nearest(part, PARTS)}")
        if part == "least_impressions" and type(value) is int:
            continue
        if value is not None and not isinstance(value, str):
            remedy = "put a template in quotes" if isinstance(value, Mapping) else "correct it"
            raise ConfigError(f"{part}: expected text, found {quoted(value, 60)}; {remedy}")
    return files_id(**dataset)


def is_own(dataset: str) -> bool:
    """Whether an id names files, each by itself."""
    return dataset.startswith(HEADS) and "=" in dataset


def text_template_of(dataset: str) -> str | None:
    """The template of a document's text that an id names, with braces; None without one.

    Raises:
        ConfigError: the id, or the template, is malformed.
    """
    named = is_own(dataset) and "text=" in dataset
    return OwnFiles(dataset, documents_only=True).text_template if named else None


def with_text(dataset: str, template: str) -> str:
    """The id of the same files with documents' texts made of this template."""
    head = next(head for head in HEADS if dataset.startswith(head))
    pieces = _PART.split(dataset.removeprefix(head))
    kept = [piece for piece in pieces if not piece.startswith("text=")]
    return head + ",".join([*kept, f"text={template}"])


class OwnFiles(Dataset):
    """`files:corpus=/c.tsv,queries=/q.tsv[,qrels=/q.txt][,text={title} {body}]`: see `PARTS`.

    A file holds JSON lines, CSV with a header, a Parquet or Arrow table, TREC's <DOC> or <top>, or
    lines of tab-separated columns: id and text; id, title and text; or id, address, title and text,
    as MS MARCO's documents; a first line of names is no text. Text may be gzipped.

    Args:
        documents_only: queries may be left out of the id.

    Raises:
        ConfigError: the id has another part, lacks corpus or queries, or a path is not absolute.
    """

    def __init__(self, dataset: str, *, documents_only: bool = False) -> None:
        head = next(head for head in HEADS if dataset.startswith(head))
        parts: dict[str, str] = {}
        for piece in _PART.split(dataset.removeprefix(head)):
            part, _, value = piece.partition("=")
            part = SYNONYMS.get(part, part)
            if part not in PARTS or not value:
                raise ConfigError(
                    f"dataset {dataset}: expected {head}corpus=FILE,queries=FILE[,qrels=FILE], "
                    f"found {piece!r}{nearest(part, PARTS)}"
                )
            parts[part] = value
        if missing := set(FILES[: 1 if documents_only else 2]) - parts.keys():
            raise ConfigError(f"dataset {dataset}: name {min(missing)}=FILE too")
        self._paths = {p: _absolute(dataset, p, parts[p]) for p in FILES if p in parts}
        self._columns = {part: parts[part] for part in PARTS if part in parts and part not in FILES}
        self._templates = {
            part: TextTemplate(self._columns[part])
            for part in ("text", "query")
            if part in self._columns
        }
        self._counts: Counter[str] = Counter()
        self.docs_name = _stem(self._paths["corpus"])
        named = [_stem(self._paths[part]) for part in FILES[:2] if part in self._paths]
        self.name = file_safe("-".join(named))

    @property
    def text_template(self) -> str | None:
        """The template of a document's text, with braces; None without one."""
        return self._templates["text"].full if "text" in self._templates else None

    def check(self, queries: bool = True) -> None:
        """Check that the files are there."""
        for part in FILES if queries else FILES[:1]:
            if part in self._paths:
                self._files(part)

    @property
    def unspaced(self) -> bool:
        """By the first documents."""
        return begins_unspaced(self)

    def docs_identity(self) -> dict[str, Any]:
        """The corpus's checksum, and how its texts are read if that is said."""
        read = {k: v for k, v in self._columns.items() if k in ("text", "doc_id")}
        return {"source": "files", "corpus": self._checksum("corpus"), **read}

    def identity(self) -> dict[str, Any]:
        """One checksum per file, without paths, and the columns that are named."""
        parts = {part: self._checksum(part) for part in self._paths}
        return {"source": "files", **parts, **self._columns}

    def docs(self) -> Iterator[tuple[str, str]]:
        """The corpus in file order."""
        self._counts.clear()
        return ((doc_id, text) for _, doc_id, text in self._texts("corpus"))

    def titles(self) -> Iterator[tuple[str, str]]:
        """The titles in file order, where a document has one of its own."""
        for row, doc_id, _ in self._texts("corpus"):
            title = _folded(row.values).get("title")
            if isinstance(title, str) and title.strip():
                yield doc_id, title.strip()

    def queries(self) -> Iterator[tuple[str, str]]:
        """All queries in file order, judged or not."""
        return ((query_id, text) for _, query_id, text in self._texts("queries"))

    def qrels(self) -> Iterator[tuple[str, str, int]]:
        """The judgements; none without a file of them."""
        if "qrels" not in self._paths:
            return iter(())
        return chain.from_iterable(
            read_judgements(path, self._columns) for path in self._files("qrels")
        )

    def counts(self) -> Mapping[str, int]:
        """Documents whose bytes are no UTF-8, if there are any."""
        return dict(self._counts)

    def place_of(self, kind: str, text: str) -> str:
        """The file and the line that has the id first."""
        if kind == "judgement":
            return str(self._paths["qrels"])
        part = {"document": "corpus", "query": "queries"}[kind]
        rows = (row.place for row, found, _ in self._texts(part) if found == text)
        return next(rows, f"{self._paths[part]}:0")

    def _files(self, part: str) -> list[Path]:
        path = self._paths[part]
        if part == "corpus" and path.is_dir() and not _has_tables(path):
            found = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
            if trec := [p for p in found if is_trec(p)]:
                return trec
        return table_files(path, part)

    def _checksum(self, part: str) -> Any:
        sums = [file_checksum(path) for path in self._files(part)]
        return sums[0] if len(sums) == 1 else sums

    def _texts(self, part: str) -> Iterator[Texts]:
        of_docs = part == "corpus"
        template = self._templates.get("text" if of_docs else "query")
        column = self._columns.get("doc_id" if of_docs else "query_id")
        for path in self._files(part):
            if is_trec(path):
                yield from self._trec(path, of_docs, template)
                continue
            named = [*(template.columns if template else ()), *([column] if column else ())]
            header = _header(named)
            keep = _kept(named, column, template)
            yield from _read(own_rows(path, header, keep), column, template)

    def _trec(self, path: Path, of_docs: bool, template: TextTemplate | None) -> Iterator[Texts]:
        rows = trec_docs(path, self._counts) if of_docs else trec_topics(path)
        for row in rows:
            if template is not None:
                text = template.fill({k: row.values.get(k.lower()) for k in template.columns})
            elif of_docs:
                text = " ".join(row.values[tag] for tag in body_columns(list(row.values)))
            else:
                text = next((row.values[k] for k in ("title", *TEXTS) if row.values.get(k)), "")
            yield row, row.values["docno" if of_docs else "num"], text.strip()


def _absolute(dataset: str, part: str, value: str) -> Path:
    path = Path(value).expanduser()
    if not path.is_absolute():
        raise ConfigError(
            f"dataset {dataset}: expected absolute paths (a submitted job runs elsewhere), "
            f"as in {part}={path.absolute()}"
        )
    return path


def _stem(path: Path) -> str:
    return file_safe(path.name.removesuffix(".gz").rpartition(".")[0] or path.name)


def _has_tables(folder: Path) -> bool:
    try:
        return bool(table_files(folder))
    except ConfigError as error:
        return "found none" not in str(error)


def _header(named: Sequence[str]) -> Header:
    """A first line is a header if columns are named, or if an id and a text have usual names."""

    def is_header(fields: Sequence[str]) -> bool:
        if named:
            return True
        names = [field.casefold() for field in fields]
        return any(name in IDS for name in names) and any(name in TEXTS for name in names)

    return Header(is_header, _POSITIONS.get, _COLUMNS, named)


def _kept(
    named: Sequence[str], column: str | None, template: TextTemplate | None
) -> Callable[[Sequence[str]], Sequence[str]]:
    """Which columns of a binary table are read: the named ones, and those with usual names; all,
    for the error to show, where none has ids."""

    def keep(names: Sequence[str]) -> Sequence[str]:
        usual = {*(IDS if column is None else ()), *((*TEXTS, "title") if not template else ())}
        kept = [name for name in names if name in named or name.casefold() in usual]
        has_ids = column is not None or any(name.casefold() in IDS for name in kept)
        return kept if has_ids else names

    return keep


def _read(
    rows: Iterator[OwnRow], column: str | None, template: TextTemplate | None
) -> Iterator[Texts]:
    """Id and text of every row."""
    for row in rows:
        for name in (column, *(template.columns if template else ())):
            if name is not None and name not in row.values:
                raise no_column(row, name)
        values = row.values if column and template else _folded(row.values)
        found = row.values[column] if column else _first(values, IDS)
        name = str(found) if type(found) is int else found
        if not isinstance(name, str):
            what = f"text or a whole number as {column}" if column else f"an id under {_or(IDS)}"
            also = ", or name the column that has it as doc_id (query_id of queries)"
            raise row.wrong(what, remedy=f"correct it{'' if column else also}")
        yield row, name, _text(row, values, template)


def _text(row: OwnRow, values: Mapping[str, Any], template: TextTemplate | None) -> str:
    if template is not None:
        try:
            return template.fill(row.values)
        except ValueError as error:
            raise row.wrong("text in every column that the template names", str(error)) from None
    text, title = _first(values, TEXTS[:-1]), values.get("title")
    if (text is None and title is None) or not all(
        isinstance(part, str | None) for part in (text, title)
    ):
        raise row.wrong(f"text under {_or(TEXTS)}, or text={{COLUMN}} to name others")
    return " ".join(filter(None, ((title or "").strip(), (text or "").strip())))


def _or(names: Sequence[str]) -> str:
    return f"one of {', '.join(names)}"


def _folded(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name.casefold(): value for name, value in values.items()}


def _first(values: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((values[name] for name in names if values.get(name) is not None), None)
