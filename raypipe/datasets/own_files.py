"""A collection in files of any place: documents, queries and, if there are any, judgements."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raypipe.config import ConfigError, nearest
from raypipe.datasets.dataset import Dataset, begins_unspaced, file_safe
from raypipe.datasets.lines import numbered, wrong
from raypipe.storage.files import file_checksum, near_names
from raypipe.tables.json_text import parse_json
from raypipe.tables.qrels import read_qrels

HEAD = "files:"
PARTS = ("corpus", "queries", "qrels")
IDS = ("_id", "id", "docid", "docno", "doc_id", "pid", "qid", "query_id")
TEXTS = ("text", "contents", "body", "passage", "query", "question")
"""Names of fields in JSON lines, the first that a record has."""
Texts = tuple[int, str, str]
"""Line number, id, text."""


def files_id(**paths: str | Path | None) -> str:
    """The id of a data set in files, by part: corpus, queries, qrels.

    Raises:
        ConfigError: a path has a comma, which parts the id.
    """
    named = {part: str(path) for part, path in paths.items() if path is not None}
    for part, path in named.items():
        if "," in path:
            raise ConfigError(f"{part} {path}: a comma parts the files of a data set; rename it")
    return HEAD + ",".join(f"{part}={path}" for part, path in named.items())


class OwnFiles(Dataset):
    """`files:corpus=/c.tsv,queries=/q.tsv,qrels=/qrels.txt`; qrels may be left out.

    A corpus or queries file holds JSON lines (`.jsonl`; id and text under the usual names, a title
    before the text), or lines of tab-separated columns: id and text; id, title and text; or id,
    address, title and text, as MS MARCO's documents; a first line of usual names is no text. Any of
    them may be gzipped.

    Raises:
        ConfigError: the id has another part, lacks corpus or queries, or a path is not absolute.
    """

    def __init__(self, dataset: str) -> None:
        self._paths: dict[str, Path] = {}
        for piece in dataset.removeprefix(HEAD).split(","):
            part, _, path = piece.partition("=")
            if part not in PARTS or not path:
                raise ConfigError(
                    f"dataset {dataset}: expected {HEAD}corpus=FILE,queries=FILE[,qrels=FILE], "
                    f"found {piece!r}{nearest(part, PARTS)}"
                )
            self._paths[part] = Path(path).expanduser()
            if not self._paths[part].is_absolute():
                raise ConfigError(
                    f"dataset {dataset}: expected absolute paths (a submitted job runs elsewhere), "
                    f"as in {part}={self._paths[part].absolute()}"
                )
        if missing := {"corpus", "queries"} - self._paths.keys():
            raise ConfigError(f"dataset {dataset}: name {min(missing)}=FILE too")
        self.docs_name = _stem(self._paths["corpus"])
        self.name = file_safe(f"{self.docs_name}-{_stem(self._paths['queries'])}")

    def check(self, queries: bool = True) -> None:
        """Check that the files are there."""
        for part in PARTS if queries else PARTS[:1]:
            if part in self._paths and not (path := self._paths[part]).is_file():
                raise ConfigError(f"{part} {path}: no file there{near_names(path, '*')}")

    @property
    def unspaced(self) -> bool:
        """By the first documents."""
        return begins_unspaced(self)

    def docs_identity(self) -> dict[str, Any]:
        """The corpus file's checksum."""
        return {"source": "files", "corpus": file_checksum(self._paths["corpus"])}

    def identity(self) -> dict[str, Any]:
        """One checksum per file, without paths."""
        parts = {part: file_checksum(path) for part, path in self._paths.items()}
        return {"source": "files", **parts}

    def docs(self) -> Iterator[tuple[str, str]]:
        """The corpus in file order."""
        return ((doc_id, text) for _, doc_id, text in _texts(self._paths["corpus"]))

    def queries(self) -> Iterator[tuple[str, str]]:
        """All queries in file order, judged or not."""
        return ((query_id, text) for _, query_id, text in _texts(self._paths["queries"]))

    def qrels(self) -> Iterator[tuple[str, str, int]]:
        """The judgements; none without a file of them."""
        if "qrels" not in self._paths:
            return iter(())
        table, _ = read_qrels(self._paths["qrels"])
        columns = (table[name].to_pylist() for name in ("query_id", "doc_id", "relevance"))
        return iter(zip(*columns, strict=True))

    def place_of(self, kind: str, text: str) -> str:
        """The file and the line that has the id first."""
        if kind == "judgement":
            return str(self._paths["qrels"])
        path = self._paths[{"document": "corpus", "query": "queries"}[kind]]
        return f"{path}:{next((n for n, found, _ in _texts(path) if found == text), 0)}"


def _stem(path: Path) -> str:
    return file_safe(path.name.removesuffix(".gz").rpartition(".")[0] or path.name)


def _texts(path: Path) -> Iterator[Texts]:
    named = path.name.removesuffix(".gz").rpartition(".")[2]
    return _json_lines(path) if named in ("jsonl", "json", "ndjson") else _columns(path)


def _columns(path: Path) -> Iterator[Texts]:
    for number, line in numbered(path):
        fields = [field.strip() for field in line.rstrip("\r\n").split("\t")]
        if number == 1 and _is_header(fields):
            continue
        if not 2 <= len(fields) <= 4:
            expected = "2 to 4 tab-separated columns (id, [address,] [title,] text)"
            raise ConfigError(wrong(path, number, expected, line))
        texts = fields[1:] if len(fields) < 4 else fields[2:]
        yield number, fields[0], " ".join(filter(None, texts))


def _is_header(fields: list[str]) -> bool:
    """Whether a first line names its columns: an id's usual name, then only such names."""
    names = [field.casefold() for field in fields]
    return names[0] in IDS and len(names) > 1 and set(names[1:]) <= {*TEXTS, "title", "url"}


def _json_lines(path: Path) -> Iterator[Texts]:
    for number, line in numbered(path):
        try:
            record = parse_json(line)
        except ValueError as error:
            remedy = f"correct it ({error})"
            raise ConfigError(
                wrong(path, number, "one JSON object per line", line, remedy)
            ) from None
        if not isinstance(record, dict):
            raise ConfigError(wrong(path, number, "a JSON object", line))
        found = _first(record, IDS), _first(record, TEXTS), record.get("title")
        name, text, title = (str(v) if type(v) is int else v for v in found)
        if not isinstance(name, str):
            raise ConfigError(wrong(path, number, f"an id under one of {', '.join(IDS)}", line))
        if not isinstance(text, str) or not isinstance(title, str | None):
            raise ConfigError(wrong(path, number, f"text under one of {', '.join(TEXTS)}", line))
        yield number, name, " ".join(filter(None, ((title or "").strip(), text.strip())))


def _first(record: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)
