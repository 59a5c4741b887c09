"""Answers of language models, kept by what was asked: no question is paid for twice.

They stand beside the artifacts, in `.answers/<engine>/`, a file per chunk that asked. The artifacts
of a collection that has grown ask again about every list; what is the same in their prompts, to the
letter, is answered from here. What failed is not kept.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from raypipe.config import digest
from raypipe.inference.llm.base import Answer, Engine, Generator, Prompt
from raypipe.storage.artifacts import Store
from raypipe.storage.inventory import ANSWERS
from raypipe.tables.chunks import TAKEN, Counts, Work

_SCHEMA = pa.schema([("prompt", pa.string()), ("answer", pa.string())])


@dataclass(frozen=True)
class AnswerStore:
    """The answers of one engine: of its `identity`, and its precision where that matters."""

    store: Store
    engine: str
    """A digest, the folder's name."""

    @classmethod
    def of(cls, store: Store, engine: Engine, precision: str) -> AnswerStore:
        used = precision if engine.uses_precision else None
        return cls(store, digest([type(engine).__name__, engine.identity(), used], 32))

    @property
    def _folder(self) -> str:
        return f"{self.store.root}/{ANSWERS}/{self.engine}"

    def read(self) -> dict[str, str]:
        """Answers as JSON, by the key of their prompt; a file that cannot be read is left out."""
        selector = pafs.FileSelector(self._folder, allow_not_found=True)
        answers: dict[str, str] = {}
        for info in sorted(self.store.fs.get_file_info(selector), key=lambda info: str(info.path)):
            if info.base_name.endswith(".parquet"):
                answers.update(self._rows(info.path))
        return answers

    def _rows(self, path: str) -> dict[str, str]:
        try:
            with self.store.fs.open_input_file(path) as stream:
                table = pq.read_table(stream, schema=_SCHEMA)
        except (OSError, pa.ArrowException):  # half written by a job that was killed
            return {}
        prompts, answers = (column.to_pylist() for column in table.columns)
        return dict(zip(prompts, answers, strict=True))

    def write(self, answers: dict[str, str]) -> None:
        """A file of its own for these answers, which appears whole."""
        self.store.make_folder(self._folder)
        name = f"{self._folder}/{uuid.uuid4().hex}"
        with self.store.fs.open_output_stream(f"{name}.part") as sink:
            pq.write_table(pa.table([list(answers), list(answers.values())], schema=_SCHEMA), sink)
        self.store.fs.move(f"{name}.part", f"{name}.parquet")


class Remembering:
    """A generator that asks only what no earlier job has asked."""

    def __init__(self, generate: Generator, store: AnswerStore) -> None:
        self._generate = generate
        self._store = store
        self._known = store.read()
        self._new: dict[str, str] = {}
        self._taken = 0

    def __call__(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Answer]:
        """Answers in the order of the prompts; those of earlier jobs are as they were."""
        keys = [_key(prompt, max_new_tokens) for prompt in prompts]
        new = [i for i, key in enumerate(keys) if key not in self._known]
        made = self._generate([prompts[i] for i in new], max_new_tokens) if new else []
        if len(made) != len(new):
            return made  # `Asked` says so
        self._taken += len(prompts) - len(new)
        answers = {i: _answer(self._known[key]) for i, key in enumerate(keys) if key in self._known}
        for i, answer in zip(new, made, strict=True):
            answers[i] = answer
            if answer.error is None:
                self._new[keys[i]] = json.dumps(asdict(answer))
        return [answers[i] for i in range(len(prompts))]

    def count_tokens(self, text: str) -> int:
        """As the engine counts them."""
        return self._generate.count_tokens(text)

    def around(self, work: Work) -> Work:
        """The work on a chunk, whose new answers are kept when it ends or fails.

        A chunk without any result keeps none: whoever repairs the server wants to ask again.
        """

        def remembered(chunk: range) -> tuple[pa.Table, Counts]:
            try:
                table, counts = work(chunk)
            except Exception:
                self._keep()
                raise
            useful = counts.get("documents", table.num_rows)
            self._keep() if useful else self._new.clear()
            counts[f"requests{TAKEN}"], self._taken = self._taken, 0
            return table, counts

        return remembered

    def _keep(self) -> None:
        if self._new:
            self._store.write(self._new)
            self._known |= self._new
            self._new = {}


def _key(prompt: Prompt, max_new_tokens: int) -> str:
    """128 bits of everything that decides an answer beside the engine."""
    content = json.dumps([asdict(prompt), max_new_tokens], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _answer(text: str) -> Answer:
    return Answer(**json.loads(text))
