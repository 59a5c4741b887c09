"""Manifests that nobody can believe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from number_steps import Number, read

from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.storage.manifest import MANIFEST, as_bytes, parsed

GOOD = {
    **{"digest": "ab", "kind": "numbers", "name": "number", "attempt": "attempt-1", "format": 1},
    "written": "2026-11-26T18:00:00Z",
    **{"files": {"a": {"size": 1, "sha256": "x"}}, "inputs": {}, "counts": {}, "spec": {}},
}
PATH = "numbers/number-ab"
BROKEN = {
    "empty": b"",
    "zeros": bytes(100),
    "cut": as_bytes(GOOD)[:60],
    "an object without entries": b"{}",
    "a list": b"[]",
    "a number": b"7",
    "no text": b"\xff\xfe",
    "no attempt": as_bytes({**GOOD, "attempt": None}),
    "an attempt elsewhere": as_bytes({**GOOD, "attempt": "../other"}),
    "files without sizes": as_bytes({**GOOD, "files": {"a": {}}}),
    "a file elsewhere": as_bytes({**GOOD, "files": {"../a": {"size": 1, "sha256": "x"}}}),
    "of another artifact": as_bytes({**GOOD, "digest": "cd"}),
    "a name with NUL": as_bytes({**GOOD, "attempt": "a\0b"}),
    "half a surrogate": as_bytes({**GOOD, "files": {"\ud800": {"size": 1, "sha256": "x"}}}),
    "a long name": as_bytes({**GOOD, "attempt": "a" * 300}),
    "versions as a list": as_bytes({**GOOD, "versions": []}),
    "facts of nothing": as_bytes({**GOOD, "facts": None}),
    "replaces a number": as_bytes({**GOOD, "replaces": 7}),
    "seconds in words": as_bytes({**GOOD, "seconds": "two"}),
    "nested": b"[" * 100_000,
    "files as a list": as_bytes({**GOOD, "files": ["a"]}),
}


def test_a_manifest_is_read_as_it_was_written():
    assert parsed(as_bytes(GOOD), PATH) == GOOD


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_damaged_manifest_is_made_again(tmp_path, content):
    with pytest.raises(ValueError, match=r"expected .* found"):
        parsed(content, PATH)
    store, step = Store(str(tmp_path)), Number(7)
    Builder(store).get(step)
    path = Path(store.root) / step.path / MANIFEST
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"manifest\.json is damaged: made again"):
        made = Builder(store).get(step)
    assert read(made.local()) == 7 and json.loads(path.read_bytes()) == made.manifest


def test_a_manifest_of_a_newer_raypipe_is_not_replaced(tmp_path):
    from raypipe.config import ConfigError

    store, step = Store(str(tmp_path)), Number(7)
    made = Builder(store).get(step)
    path = Path(store.root) / step.path / MANIFEST
    path.write_bytes(as_bytes({**made.manifest, "format": 2}))
    with pytest.raises(ConfigError, match=r"format 1.*found 2.*newer raypipe"):
        Builder(store).get(step)
    assert json.loads(path.read_bytes())["format"] == 2


@pytest.mark.parametrize("what", ["folder", "link to itself", "dangling link"])
def test_a_manifest_that_is_no_file_is_a_sentence(tmp_path, what):
    from raypipe.config import ConfigError

    store, step = Store(str(tmp_path)), Number(7)
    path = Path(store.root) / step.path / MANIFEST
    path.parent.mkdir(parents=True)
    if what == "folder":
        path.mkdir()
    else:
        path.symlink_to(path if what == "link to itself" else tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"manifest\.json: expected a file that can be read"):
        Builder(store).get(step)
