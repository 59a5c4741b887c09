"""Artifacts of other texts: which were made by the same step, and what of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from raypipe.storage.artifacts import Artifact, Step, Store
from raypipe.storage.builder import Builder
from raypipe.storage.similar import MOST, made_from, similar


@dataclass(frozen=True)
class Texts(Step):
    text: str

    kind: ClassVar[str] = "texts"
    name = "texts"

    def spec(self) -> Mapping[str, Any]:
        return {"text": self.text}

    def run(self, attempt: Any, context: Any) -> Mapping[str, Any]:
        with attempt.open("text") as sink:
            sink.write(self.text.encode())
        return {"failed": 0}


@dataclass(frozen=True)
class Vectors(Step):
    texts: Texts
    weights: Texts = field(default_factory=lambda: Texts("weights"))
    setting: int = 1
    failed: int = 0

    kind: ClassVar[str] = "vectors"
    name = "vectors"

    def spec(self) -> Mapping[str, Any]:
        return {"setting": self.setting}

    def inputs(self) -> Mapping[str, Step]:
        return {"texts": self.texts, "weights": self.weights}

    def refuses(self, counts: Mapping[str, Any]) -> str | None:
        return "it failed" if counts["failed"] else None

    def run(self, attempt: Any, context: Any) -> Mapping[str, Any]:
        with attempt.open("vectors") as sink:
            sink.write(self.texts.text.encode())
        return {"failed": self.failed}


@pytest.fixture
def builder(tmp_path) -> Builder:
    return Builder(Store(str(tmp_path)))


def found(builder: Builder, step: Step) -> set[str]:
    """What the similar artifacts were made of."""
    texts = (made_from(artifact, "texts") for artifact in similar(builder.store, step, {"texts"}))
    return {artifact.read("text").decode() for artifact in texts if artifact is not None}


def test_only_the_named_inputs_may_differ(builder):
    for step in (
        Vectors(Texts("a")),
        Vectors(Texts("b"), setting=2),
        Vectors(Texts("c"), weights=Texts("others")),
        Vectors(Texts("d"), failed=1),
    ):
        builder.get(step)
    assert found(builder, Vectors(Texts("new"))) == {"a"}
    assert found(builder, Vectors(Texts("a"))) == set()  # itself is no other


def test_another_version_is_another_step(builder, monkeypatch):
    builder.get(Vectors(Texts("a")))
    monkeypatch.setattr(Vectors, "version", 2)
    assert found(builder, Vectors(Texts("new"))) == set()


def test_what_is_damaged_or_gone_gives_nothing(builder):
    kept: Artifact = builder.get(Vectors(Texts("a")))
    texts = builder.get(Texts("a"))
    Path(texts.local() / "text").write_bytes(b"bb")
    assert made_from(kept, "texts") is None and made_from(kept, "nothing") is None
    Path(kept.local() / "vectors").unlink()
    assert similar(builder.store, Vectors(Texts("new")), {"texts"}) == []


def test_the_newest_ones_are_taken(builder):
    for number in range(MOST + 2):
        builder.get(Vectors(Texts(f"text {number}")))
    assert len(found(builder, Vectors(Texts("new")))) == MOST
