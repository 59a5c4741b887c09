"""A training file as a data set of its own: the texts that it holds, without any other file.

`training:/data/train.jsonl` takes queries, documents and judgements (its positives) from the file.
A text without an id has the hash of its normalised text for one. With `,corpus=/corpus.jsonl` the
documents are the corpus's, by text; those that it lacks follow under such ids, and are counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raypipe.config import ConfigError, nearest
from raypipe.datasets.dataset import Dataset, begins_unspaced, file_safe
from raypipe.datasets.own_files import OwnFiles, files_id
from raypipe.datasets.own_rows import table_files
from raypipe.datasets.text_match import hash_id
from raypipe.datasets.training_forms import FileEntry
from raypipe.datasets.training_reader import form_of, read_groups
from raypipe.storage.files import file_checksum

HEAD = "training:"
PARTS = ("corpus", "text", "doc_id")
_PART = re.compile(rf",(?=(?:{'|'.join(PARTS)})=)")


class TrainingFileData(Dataset):
    """`training:FILE[,corpus=FILE[,text={title} {body}][,doc_id=COLUMN]]`.

    Raises:
        ConfigError: the id has another part, or a path is not absolute.
    """

    def __init__(self, dataset: str) -> None:
        first, *pieces = _PART.split(dataset.removeprefix(HEAD))
        self._path = Path(first).expanduser()
        if not self._path.is_absolute() or ("=" in first and not self._path.exists()):
            raise ConfigError(
                f"dataset {dataset}: expected {HEAD}FILE[,corpus=FILE], an absolute path (a "
                f"submitted job runs elsewhere){nearest(first.partition('=')[0], PARTS)}"
            )
        parts = dict(piece.split("=", 1) for piece in pieces)
        self._corpus = None
        if "corpus" in parts:  # queries are those of the training file
            self._corpus = OwnFiles(files_id(**parts, queries=str(self._path)))
        self.docs_name = file_safe(self._path.name.removesuffix(".gz").partition(".")[0])
        self.name = self.docs_name
        self._counts: Counter[str] = Counter()

    @property
    def text_template(self) -> str | None:
        """Of the corpus's texts."""
        return None if self._corpus is None else self._corpus.text_template

    def check(self, queries: bool = True) -> None:
        """Check that the files are there, and that the training file has texts."""
        files = table_files(self._path, "training file")
        form = form_of(self._path)
        if form is None or not form.has_texts:
            name = "lines of ids" if form is None else form.name
            raise ConfigError(
                f"training file {files[0]}: expected texts, found {name}, which have ids alone; "
                "name the data set whose ids they are, and this file as groups.triples.path"
            )
        if self._corpus is not None:
            self._corpus.check(queries=False)

    @property
    def unspaced(self) -> bool:
        """By the first documents."""
        return begins_unspaced(self)

    def docs_identity(self) -> dict[str, Any]:
        """The training file's checksum, and the corpus's."""
        sums = [file_checksum(path) for path in table_files(self._path, "training file")]
        corpus = {} if self._corpus is None else {"corpus": self._corpus.docs_identity()}
        return {"source": "training", "file": sums, **corpus}

    def identity(self) -> dict[str, Any]:
        """The same: queries and judgements are in the file."""
        return self.docs_identity()

    def docs(self) -> Iterator[tuple[str, str]]:
        """The corpus, then the file's texts that it lacks, each once, in the file's order."""
        self._counts.clear()
        self._counts["training_texts_in_corpus"] = 0
        in_corpus: set[str] = set()
        if self._corpus is not None:
            asked = {hash_id(entry.text) for entry in self._documents() if entry.text}
            for doc_id, text in self._corpus.docs():
                if (number := hash_id(text)) in asked:
                    in_corpus.add(number)
                yield doc_id, text
        seen: set[str] = set()
        for entry in self._documents():
            number = hash_id(entry.text or "")
            if number in in_corpus:
                self._counts["training_texts_in_corpus"] += number not in seen
            elif entry.text and (doc_id := self._doc_id(entry)) not in seen:
                seen.add(doc_id)
                self._counts["training_texts_not_in_corpus"] += self._corpus is not None
                yield doc_id, entry.text
            seen.add(number)
        if self._corpus is None:
            self._counts.clear()

    def queries(self) -> Iterator[tuple[str, str]]:
        """Every query once, in the file's order."""
        seen: set[str] = set()
        for group in read_groups(self._path):
            if (query_id := _query_id(group.query)) not in seen:
                seen.add(query_id)
                yield query_id, group.query.text or ""

    def qrels(self) -> Iterator[tuple[str, str, int]]:
        """Every positive, with relevance 1."""
        of_corpus = self._ids_in_corpus()
        seen: set[tuple[str, str]] = set()
        for group in read_groups(self._path):
            for entry in group.docs[: group.positives]:
                doc_id = of_corpus.get(hash_id(entry.text or ""), self._doc_id(entry))
                pair = (_query_id(group.query), doc_id)
                if entry.text and pair not in seen:
                    seen.add(pair)
                    yield *pair, 1

    def counts(self) -> Mapping[str, int]:
        """With a corpus, how many texts of the file it has and lacks."""
        return dict(self._counts)

    def place_of(self, kind: str, text: str) -> str:
        """The line that has the id first, or the file."""
        for group in read_groups(self._path):
            docs = map(self._doc_id, group.docs)
            if text in ([_query_id(group.query)] if kind == "query" else docs):
                return group.place
        return str(self._path)

    def _doc_id(self, entry: FileEntry) -> str:
        """Its own; beside a corpus, whose ids it might repeat, the hash."""
        own = entry.text_id if self._corpus is None else None
        return own or hash_id(entry.text or "")

    def _documents(self) -> Iterator[FileEntry]:
        for group in read_groups(self._path):
            yield from group.docs

    def _ids_in_corpus(self) -> dict[str, str]:
        """The corpus's id by hash, of the positives' texts that it has."""
        if self._corpus is None:
            return {}
        asked = {
            hash_id(entry.text or "")
            for group in read_groups(self._path)
            for entry in group.docs[: group.positives]
        }
        found: dict[str, str] = {}
        for doc_id, text in self._corpus.docs():
            if (number := hash_id(text)) in asked:
                found.setdefault(number, doc_id)
        return found


def _query_id(entry: FileEntry) -> str:
    return entry.text_id or hash_id(entry.text or "")
