"""What is said of an artifact that is used again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from number_steps import Number

from raypipe.storage import reuse
from raypipe.storage.artifacts import MANIFEST, Store
from raypipe.storage.builder import Builder


class Tokenised(Number):
    libraries: ClassVar[tuple[str, ...]] = ("tokenizers", "transformers")


HERE = {"tokenizers": "0.22.1", "transformers": "5.23.0", "torch": "2.13.0+cpu"}


def said_of(store: Store, step: Number, versions: dict[str, str] | None) -> list[str]:
    """What a later builder says of the step's artifact, made by these versions."""
    Builder(store).get(step)
    path = Path(store.root) / step.path / MANIFEST
    manifest: dict[str, Any] = json.loads(path.read_text())
    manifest["versions"] = versions
    if versions is None:
        del manifest["versions"]
    path.write_text(json.dumps(manifest))
    said: list[str] = []
    builder = Builder(store, announce=said.append)
    for _ in range(2):
        builder.get(step)
    assert not builder.made
    return said


@pytest.mark.parametrize(
    ("made_by", "named"),
    [
        (HERE, None),
        ({**HERE, "tokenizers": "0.22.9", "transformers": "5.0"}, None),
        ({**HERE, "torch": "1.0"}, None),  # this step does not use it
        ({}, None),
        (None, None),
        ({**HERE, "tokenizers": "0.21.4"}, ("tokenizers 0.21.4", "0.22.1")),
        (
            {"tokenizers": "0.13.3", "transformers": "4.57.0"},
            ("tokenizers 0.13.3, transformers 4.57.0", "0.22.1, 5.23.0"),
        ),
    ],
)
def test_other_major_versions_are_said_once_in_one_line(made_by, named, tmp_path, monkeypatch):
    version = reuse.metadata.version
    monkeypatch.setattr(reuse.metadata, "version", lambda name: HERE.get(name) or version(name))
    step = Tokenised(7, "tiny")
    said = said_of(Store(str(tmp_path)), step, made_by)
    line = (
        "numbers tiny: used again, made by {}, here are {}; remove "
        f"{step.path} from the storage to have it made anew"
    )
    assert said == ([] if named is None else [line.format(*named)])


def test_a_library_that_is_not_here_has_no_version_to_compare(tmp_path, monkeypatch):
    monkeypatch.setattr(Tokenised, "libraries", ("no-such-library",))
    assert said_of(Store(str(tmp_path)), Tokenised(7), {"no-such-library": "1"}) == []
