"""A number per document, in files of any size; equal texts have equal numbers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from raypipe.datasets import text_hashes as module
from raypipe.datasets.steps import DOCS_FILE, Collection, QuerySet
from raypipe.datasets.text_hashes import HASHES, HashTexts, TextHashes, read_hashes
from raypipe.records import DOCS
from raypipe.tables.plain_text import text_hash

TEXTS = {"a": "West Lake", "b": "west  lake", "c": "the Great Wall", "d": "西湖", "e": "West Lake!"}


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_rows_are_the_documents(tmp_path, size):
    table = pa.table([list(TEXTS), list(TEXTS.values())], schema=DOCS)
    with pa.ipc.new_file(str(tmp_path / DOCS_FILE), DOCS) as writer:
        writer.write_table(table, max_chunksize=2)
    work = HashTexts(SimpleNamespace(local=lambda: tmp_path)).build()
    for number, start in enumerate(range(0, len(TEXTS), size)):
        part, _ = work(range(start, min(start + size, len(TEXTS))))
        with pa.ipc.new_file(str(tmp_path / f"part-{number:05d}.arrow"), HASHES) as writer:
            writer.write_table(part)
    hashes = read_hashes(SimpleNamespace(local=lambda: tmp_path)).tolist()
    assert hashes == [text_hash(text) for text in TEXTS.values()]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 4


def test_one_artifact_per_collection(tmp_path):
    def step(split: str) -> TextHashes:
        return TextHashes(Collection(QuerySet(dataset=f"beir:{tmp_path}", split=split)))

    (tmp_path / "corpus.jsonl").write_text('{"_id": "a", "text": "x"}\n')
    for split in ("train", "test"):
        Path(tmp_path / "qrels").mkdir(exist_ok=True)
        (tmp_path / "qrels" / f"{split}.tsv").touch()
    assert step("train").digest == step("test").digest
    assert list(step("train").inputs()) == ["collection"] and module.CHUNK >= 100_000
