"""kill -9 while queries are filtered, scored and written: the same command ends with equal bytes.

With a service instead of a model in the process, finished chunks stay and are not asked for again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import pytest
from chat_server import completion, prompt_in, running
from killing import begin_recipe, finish, kill_driver, random_teacher, until

CORPUS = "pydoc:json,logging,unittest,email,asyncio"
RECIPE = """\
name: chaos
data:
  train:
    type: synthetic
    dataset: "{corpus}"
    passages: 400
    validation_share: 0.2
    generator: {{type: extractive, queries: [title, first_sentence]}}
    filter:
      retrievers: {{bm25: {{type: bm25, depth: 20}}}}
      shortest: 2
      teacher: {{type: cross_encoder, backbone: "{teacher}",
                 truncation: {{type: longest_first, max_length: 64}}}}
      percentile: 0
  validation:
    type: synthetic
    dataset: "{corpus}"
    split: validation
    passages: 400
    validation_share: 0.2
    generator: {{type: llm, engine: {engine}, queries: [title, web], passages_per_chunk: 4,
                 max_new_tokens: 24, longest: 64, leak: 1.0}}
  test: {{dataset: "{corpus}", split: test, limit: 16}}
model: {{backbone: "{minilm}"}}
stages: {{contrastive: {{loss: {{type: infonce}}}}}}
storage: {storage}
"""
KINDS = ("passages", "generated", "candidates", "teacher", "queries")

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return random_teacher(tmp_path_factory.mktemp("teacher"))


def job(folder: Path, teacher: Path, engine: str) -> Popen[str]:
    """Writes the queries of both sets below the folder."""
    named = {"corpus": CORPUS, "teacher": teacher, "engine": engine}
    return begin_recipe("synthesize", folder, RECIPE, **named)


def killed_when(condition: Callable[[], bool], process: Popen[str]) -> None:
    """Kill the driver once the condition holds."""
    until(condition, process)
    kill_driver(process)


def parts(folder: Path, kind: str, name: str = "") -> list[Path]:
    """Finished chunks of one kind of artifact, committed or not."""
    return list((folder / "storage" / kind).glob(f"{name}*/attempt-*/part-*.parquet"))


def content(folder: Path) -> dict[str, list]:
    """Of every artifact behind the queries, its files with their checksums."""
    return {
        path.parent.name: json.loads(path.read_text())["files"]
        for kind in KINDS
        for path in (folder / "storage" / kind).glob("*/manifest.json")
    }


def test_a_driver_killed_three_times_writes_what_an_undisturbed_one_does(
    tmp_path, teacher, tiny_llm
):
    engine = f"{{type: transformers, model: '{tiny_llm}', context_tokens: 256}}"
    whole, disturbed = tmp_path / "whole", tmp_path / "disturbed"
    finish(job(whole, teacher, engine), whole)
    moments = {
        "filtering": lambda: parts(disturbed, "candidates"),
        "scoring": lambda: len(parts(disturbed, "teacher")) >= 2,
        "generation": lambda: len(parts(disturbed, "generated", "tiny-llama")) >= 3,
    }
    for condition in moments.values():
        killed_when(lambda c=condition: bool(c()), job(disturbed, teacher, engine))
    out = finish(job(disturbed, teacher, engine), disturbed)
    assert "chunks were there" in out
    expected = content(whole)
    assert {name.split("-")[0] for name in expected} >= {"cross_encoder", "taught"}
    assert content(disturbed) == expected


def test_over_http_finished_chunks_stay(tmp_path, teacher):
    def play(handler, body, number):
        words = [word for word in prompt_in(body).split() if word.isalpha()]
        handler.reply(200, completion(" ".join(words[-6:])))

    with running(play) as server:
        engine = f"{{type: http, url: '{server.url}', model: m, concurrency: 1}}"
        killed_when(
            lambda: len(parts(tmp_path, "generated", "m-")) >= 3, job(tmp_path, teacher, engine)
        )
        there = {path.name: path.read_bytes() for path in parts(tmp_path, "generated", "m-")}
        before = len(server.bodies)
        out = finish(job(tmp_path, teacher, engine), tmp_path)
        after = len(server.bodies) - before
    (manifest,) = (tmp_path / "storage" / "generated").glob("m-*/manifest.json")
    committed = json.loads(manifest.read_text())
    folder = manifest.parent / committed["attempt"]
    assert {name: (folder / name).read_bytes() for name in there} == there
    chunks = len(committed["files"])
    assert f"{len(there)} of {chunks} chunks were there" in out
    assert committed["counts"]["chunks_taken_over"] == len(there)
    assert after <= 8 * (chunks - len(there))  # two queries for each of four passages
