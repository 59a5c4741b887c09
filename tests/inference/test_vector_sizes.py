"""Vectors that exceed the memory: the size is said before the first text is encoded."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from vector_parts import write_vectors

from raypipe.candidates.dense import faiss_index
from raypipe.candidates.dense.faiss_index import HnswIndex
from raypipe.config import ConfigError
from raypipe.inference import embeddings, vector_sizes
from raypipe.inference.embeddings import Embeddings
from raypipe.inference.vector_sizes import too_large, width_of
from raypipe.models.sentence_modules import Layer, SentenceModules

PLAIN = SentenceModules(("mean",), (), {})


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(vector_sizes, "memory_of_machine", lambda: 4_000)


def test_the_size_by_hand():
    assert too_large(100, 10) is None
    assert too_large(10_000, None) is None
    assert too_large(2_000_000, 768) == (
        "the vectors of 2,000,000 texts, 768 numbers each, take 6.1 GB, and this machine has "
        "0.0 GB of memory"
    )


def test_the_width_is_that_of_the_last_module():
    assert width_of({"dim": 8}, PLAIN) == 8
    assert width_of({"hidden_size": 8}, SentenceModules(("mean", "max"), (), {})) == 16
    dense = Layer("Dense", "2_Dense", {"in_features": 8, "out_features": 3})
    assert width_of({"hidden_size": 8}, SentenceModules(("mean",), (dense,), {})) == 3
    assert width_of({}, PLAIN) is None


def test_it_is_said_before_encoding(monkeypatch, capsys):
    class SaidError(Exception):
        """Encoding begins."""

    def begin(*given, **more):
        assert "take 0.0 GB" in capsys.readouterr().out
        raise SaidError

    backbone = SimpleNamespace(published_config=lambda: {"hidden_size": 100})
    tokens = SimpleNamespace(backbone=backbone, texts=None)
    step = SimpleNamespace(tokens=tokens, modules=PLAIN, encoder=None, prefix="", longest=8)
    step.precision = "fp32"
    monkeypatch.setattr(embeddings, "TokenReader", lambda folder: range(50))
    monkeypatch.setattr(embeddings, "text_file", lambda texts: "")
    monkeypatch.setattr(embeddings, "run_chunks", begin)
    artifact = SimpleNamespace(local=lambda: None, manifest={"inputs": {}})
    inputs = {"tokens": artifact, "backbone": artifact}
    context = SimpleNamespace(batch_tokens=lambda: 1, device=lambda: "cpu")
    with pytest.raises(SaidError):
        Embeddings.run(step, SimpleNamespace(inputs=inputs), context)


def test_an_index_of_them_is_refused(tmp_path):
    pytest.importorskip("faiss")
    import numpy as np

    write_vectors(tmp_path, np.ones((50, 100), np.float32), [50])
    vectors = SimpleNamespace(local=lambda: tmp_path)
    with pytest.raises(ConfigError, match=r"hnsw: the vectors of 50 texts.*index\.type=exact"):
        faiss_index._build_index(SimpleNamespace(inputs={"doc_vectors": vectors}), HnswIndex())
