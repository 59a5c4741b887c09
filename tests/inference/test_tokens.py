"""Token stores: what is counted of texts that the vocabulary does not know, and who hears of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
from families import DOC_TEXTS, folder_of, write_arrow

from raypipe.datasets.steps import DOCS_FILE, Collection, QuerySet
from raypipe.inference.tokens import Tokens, _Tokenise
from raypipe.models.backbone import Backbone
from raypipe.records import DOCS

THAI = ["การท่องเที่ยว ในประเทศไทย", "ภาษาไทย เป็นภาษา ที่มีระดับเสียง"]
AMHARIC = ["ሰላም ለዓለም", "አማርኛ የኢትዮጵያ ቋንቋ ነው"]


@dataclass(frozen=True)
class Folder:
    """Stands in for an artifact."""

    path: Path

    def local(self) -> Path:
        return self.path


def counts(folder: Path, family: str, texts: list[str]) -> dict[str, int]:
    table = pa.table({"doc_id": [str(i) for i in range(len(texts))], "text": texts}, schema=DOCS)
    write_arrow(folder, table)
    (folder / "part-00000.arrow").rename(folder / DOCS_FILE)
    work = _Tokenise(Folder(folder), DOCS_FILE, Folder(folder_of(family))).build()
    return {"rows": len(texts), **work(range(len(texts)))[1]}


def alarms(family: str, found: dict[str, int]) -> list[str]:
    collection = Collection(QuerySet(dataset="pydoc", split="test"))
    return list(Tokens(collection, Backbone(str(folder_of(family)))).alarms(found))


@pytest.mark.parametrize("texts", [THAI, AMHARIC], ids=["thai", "amharic"])
@pytest.mark.parametrize("family", ["bert", "deberta_v3"])
def test_a_script_that_the_vocabulary_does_not_know(tmp_path, family, texts):
    found = counts(tmp_path / "texts", family, texts)
    assert found["unknown_tokens"] > found["tokens"] / 4
    (sentence,) = alarms(family, found)
    assert f"({found['unknown_tokens']} of {found['tokens']}) are unknown to the" in sentence
    assert str(folder_of(family)) in sentence and "multilingual" in sentence


def test_texts_that_become_no_token(tmp_path):
    """Line breaks and spaces alone, as of scanned pages."""
    found = counts(tmp_path / "texts", "bert", [" ", "\n", *DOC_TEXTS[:8]])
    assert found["texts_without_tokens"] == 2
    (sentence,) = alarms("bert", found)
    assert sentence.startswith("20 % of the texts (2 of 10) have no token in the vocabulary of ")


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta_v3"])
def test_texts_that_it_knows_raise_no_alarm(tmp_path, family):
    found = counts(tmp_path / "texts", family, DOC_TEXTS)
    assert found["unknown_tokens"] == 0 and alarms(family, found) == []
    mixed = {"rows": 10, "tokens": 1000, "unknown_tokens": 40, "texts_without_tokens": 0}
    assert alarms(family, mixed) == []
    assert alarms(family, {"rows": 10, "tokens": 1000}) == []  # of an earlier version
