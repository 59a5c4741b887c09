"""Folders in BEIR's layout: corpus.jsonl[.gz], queries.jsonl[.gz], qrels/SPLIT.tsv[.gz]."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raypipe.config import ConfigError, nearest
from raypipe.datasets.dataset import Beginning, Dataset, begins_unspaced, file_safe
from raypipe.datasets.lines import numbered, wrong
from raypipe.names import quoted
from raypipe.storage.files import file_checksum, near_names
from raypipe.tables.fields import grade
from raypipe.tables.json_text import parse_json

SMALL = 16 << 20
"""Bytes of a corpus that is read in a second."""
END = 1 << 20
"""Bytes of a corpus's last lines."""
QRELS_HEADER = ["query-id", "corpus-id", "score"]


class BeirFolder(Dataset):
    """One split of a folder; the queries are those that the split's qrels judge.

    Raises:
        ConfigError: the path is not absolute, or no split was named.
    """

    def __init__(self, folder: str | Path, split: str | None) -> None:
        self.folder = Path(folder).expanduser()
        if not self.folder.is_absolute():
            raise ConfigError(
                f"dataset beir:{folder}: expected an absolute path (a submitted job runs "
                f"elsewhere), as in beir:{self.folder.absolute()}"
            )
        if split is None:
            self._folder()
            names = nearest("", self.splits()) or "; there is no qrels file at all"
            raise ConfigError(f"dataset beir:{folder} needs a split{names}")
        self.split = split
        self.docs_name = file_safe(self.folder.name)
        self.name = file_safe(f"{self.folder.name}-{split}")
        self._files: dict[str, Path] = {}

    def splits(self) -> list[str]:
        """The names of the qrels files, sorted."""
        paths = [path for path in (self.folder / "qrels").glob("*.tsv*") if path.is_file()]
        names = [path.name.removesuffix(".gz") for path in paths]
        return sorted({name.removesuffix(".tsv") for name in names if name.endswith(".tsv")})

    def check(self, queries: bool = True) -> None:
        """Check that the folder and its files are there."""
        self._file("corpus")
        if queries:
            self._file("queries")
            self._qrels_file()

    @property
    def unspaced(self) -> bool:
        """By the first documents."""
        return begins_unspaced(self)

    def beginning(self, count: int) -> Beginning | None:
        """As of any data set; a small corpus is read whole, and of a large one that is not gzipped
        the end too: a copy that was cut off is damaged there."""
        path = self._file("corpus")
        zipped = path.suffix == ".gz"
        if path.stat().st_size <= (SMALL // 4 if zipped else SMALL):
            return Beginning(list(self.docs()), True)
        if not zipped:
            _check_end(path)
        return super().beginning(count)

    def docs_identity(self) -> dict[str, Any]:
        """The corpus file's checksum."""
        return {"source": "beir", "corpus": file_checksum(self._file("corpus"))}

    def identity(self) -> dict[str, Any]:
        """One checksum per file, without the path and the split's name."""
        return {
            **self.docs_identity(),
            "queries": file_checksum(self._file("queries")),
            "qrels": file_checksum(self._qrels_file()),
        }

    def docs(self) -> Iterator[tuple[str, str]]:
        """The corpus in file order; a missing title counts as empty, a missing text is an error."""
        for _, record in _records(self._file("corpus")):
            parts = ((record.get(key) or "").strip() for key in ("title", "text"))
            yield record["_id"], " ".join(part for part in parts if part)

    def titles(self) -> Iterator[tuple[str, str]]:
        """The `title` of every document that has one."""
        for _, record in _records(self._file("corpus")):
            if title := (record.get("title") or "").strip():
                yield record["_id"], title

    def queries(self) -> Iterator[tuple[str, str]]:
        """The queries that this split judges, in file order."""
        judged = {query_id for query_id, _, _ in self.qrels()}
        for _, record in _records(self._file("queries")):
            if record["_id"] in judged:
                yield record["_id"], (record["text"] or "").strip()

    def qrels(self) -> Iterator[tuple[str, str, int]]:
        """The judgements in file order; values of 0 and less stay as they are."""
        path = self._qrels_file()
        relevance: dict[str, int] = {}
        for number, line in numbered(path):
            fields = line.rstrip("\r\n").split("\t")
            if number == 1:
                if fields != QRELS_HEADER:
                    raise ConfigError(wrong(path, number, f"the header {QRELS_HEADER}", fields))
                continue
            if len(fields) != 3:
                raise ConfigError(wrong(path, number, "three tab-separated fields", fields))
            if (value := relevance.get(fields[2])) is None:
                value = relevance[fields[2]] = _relevance(path, number, fields[2])
            yield fields[0], fields[1], value

    def place_of(self, kind: str, text: str) -> str:
        """The file and the line that has the id first; reads the file up to there."""
        if kind == "judgement":
            path = self._qrels_file()
            lines = (n for n, line in numbered(path) if text in line.rstrip("\r\n").split("\t"))
        else:
            path = self._file({"document": "corpus", "query": "queries"}[kind])
            lines = (n for n, record in _records(path) if record["_id"] == text)
        return f"{path}:{next(lines, 0)}"

    def _folder(self) -> None:
        if not self.folder.is_dir():
            near = near_names(self.folder, "*/")
            raise ConfigError(f"dataset beir:{self.folder}: no folder at {self.folder}{near}")

    def _file(self, stem: str) -> Path:
        """The file of that name; the one that was named stays the one that is read."""
        self._folder()
        if there := self._one_of(f"{stem}.jsonl"):
            return there
        near = near_names(self.folder / f"{stem}.jsonl", f"[{stem[0].upper()}{stem[0]}]*")
        raise ConfigError(
            f"{self.folder}: expected {stem}.jsonl or {stem}.jsonl.gz, found neither{near}; add "
            "the file, or name another folder"
        )

    def _qrels_file(self) -> Path:
        self._folder()
        if there := self._one_of(f"qrels/{self.split}.tsv"):
            return there
        near = nearest(self.split, self.splits()) or "; there is no qrels file at all"
        raise ConfigError(f"dataset beir:{self.folder} has no split {self.split!r}{near}")

    def _one_of(self, name: str) -> Path | None:
        """The file of that name, plain or packed; None without one.

        Raises:
            ConfigError: both are there, so that either may be meant.
        """
        places = [self.folder / name, self.folder / f"{name}.gz"]
        named = self._files.get(name)
        there = [named] if named and named.is_file() else [p for p in places if p.is_file()]
        if len(there) > 1:
            raise ConfigError(
                f"{self.folder}: expected one of {name} and {name}.gz, found both; take one away"
            )
        return self._files.setdefault(name, there[0]) if there else None


def _check_end(path: Path) -> None:
    """Refuse a corpus whose last lines are none, or that ends amid one.

    Raises:
        ConfigError: a line is no JSON object with an id.
    """
    with path.open("rb") as file:
        file.seek(-END, os.SEEK_END)
        file.readline()
        for line in file:
            try:
                whole_line = not line.strip() or "_id" in parse_json(line)
            except (ValueError, TypeError):
                whole_line = False
            if not whole_line:
                raise ConfigError(
                    f"{path}: expected one JSON object with an _id per line, found in the last "
                    f"lines {quoted(line[:200], 120)}; the file may be cut off, copy it again"
                )


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, JSON object with a string `_id` and a string or null `text`).

    An id may be a whole number in the file, as pandas writes one.
    """
    for number, line in numbered(path):
        try:
            record = parse_json(line)
        except ValueError as error:
            raise ConfigError(
                wrong(path, number, "one JSON object per line", line, f"correct it ({error})")
            ) from None
        if not isinstance(record, dict):
            raise ConfigError(wrong(path, number, "a JSON object", record))
        if type(record.get("_id")) is int:  # no boolean, which is one to isinstance
            record["_id"] = str(record["_id"])
        if not isinstance(record.get("_id"), str):
            raise ConfigError(wrong(path, number, 'text or a whole number as "_id"', record))
        texts = [record.get("text", 0), record.get("title")]
        if any(text is not None and not isinstance(text, str) for text in texts):
            raise ConfigError(
                wrong(path, number, 'strings under "text" and, if there, "title"', record)
            )
        if "\\" in line and "\\ud" in line.lower() and not _encodable(record):
            raise ConfigError(wrong(path, number, "text without half surrogate pairs", line))
        yield number, record


def _encodable(record: dict[str, Any]) -> bool:
    try:
        "".join(record.get(key) or "" for key in ("_id", "title", "text")).encode()
    except UnicodeEncodeError:
        return False
    return True


def _relevance(path: Path, number: int, text: str) -> int:
    try:
        return grade(text)
    except ValueError as error:
        raise ConfigError(wrong(path, number, str(error), text)) from None
