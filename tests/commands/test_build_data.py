"""A folder of public files, built from a stand-in for their hosts; no test has a network."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import re
import shutil
from pathlib import Path

import ir_datasets
import pytest
from servers_here import LocalHandler, LocalServer, serving

from raypipe import public_files
from raypipe.commands import build_data
from raypipe.config import ConfigError
from raypipe.datasets.ir import open_dataset
from raypipe.public_files import FOLDERS, PublishedFile, PublishedFolder, sentence_on
from raypipe.storage.files import check_files

RUNS = {
    "runs/a.run.gz": b"q0 Q0 d1 1 2.0 rank\nq0 Q0 d3 2 1.0 rank\n",
    "llm/b.run.gz": b"q1 Q0 d3 1 2.0 rank\nq1 Q0 d0 2 1.0 rank\n",
}


@pytest.fixture
def host():
    """Serves RUNS below a path with a colon, as real names have; keeps what is asked for."""
    asked: list[str] = []

    class Handler(LocalHandler):
        def get(self) -> None:
            asked.append(self.path)
            body = RUNS.get(self.path.removeprefix("/12:30/"))
            self.reply(404 if body is None else 200, body or b"")

    with serving(LocalServer(Handler)) as server:
        yield f"{server.url}/12:30", asked


@pytest.fixture
def folder(host, tmp_path, monkeypatch) -> PublishedFolder:
    """Two runs; documents, queries and judgements of a BEIR folder in place of ir_datasets'."""
    files = [
        PublishedFile(name, "a stand-in", f"{host[0]}/{name}", _sha256(body), len(body))
        for name, body in RUNS.items()
    ]
    root = tmp_path / "whole"
    (root / "qrels").mkdir(parents=True)
    for name, prefix in (("corpus", "d"), ("queries", "q")):
        rows = [{"_id": f"{prefix}{i}", "text": f"text of {prefix}{i} é"} for i in range(4)]
        (root / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    for split in ("one", "two"):
        text = f"query-id\tcorpus-id\tscore\nq{split == 'two':d}\td3\t2\n"
        (root / "qrels" / f"{split}.tsv").write_text(text)
    monkeypatch.setattr(
        build_data,
        "open_dataset",
        lambda name: open_dataset(f"beir:{root}", name),
    )
    splits = {"dl19": "one", "dl20": "two"}
    return PublishedFolder("small", tuple(files), documents="one", splits=splits)


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def test_the_folder_is_a_data_set_with_the_runs(folder, tmp_path):
    place = tmp_path / "built"
    said = list(build_data.build(folder, place))
    assert said[-1] == "small: queries, judgements and passages are there too; nothing is missing"
    data = open_dataset(f"beir:{place}", "dl20")
    data.check()
    assert dict(data.docs()) == {d: f"text of {d} é" for d in ("d0", "d1", "d3")}
    assert list(data.queries()) == [("q1", "text of q1 é")] and list(data.qrels()) == [
        ("q1", "d3", 2)
    ]
    for name, body in RUNS.items():
        assert gzip.decompress((place / name).read_bytes()) == body
    seen = json.loads((place / "sources.json").read_text())
    assert seen["runs/a.run.gz"]["sha256"] == _sha256(RUNS["runs/a.run.gz"])


def test_what_is_there_is_not_fetched_again_and_builds_the_same_bytes(folder, tmp_path, host):
    for name in ("built", "again"):
        list(build_data.build(folder, tmp_path / name))
    asked = host[1]
    assert asked == [f"/12:30/{name}" for name in RUNS] * 2
    list(build_data.build(folder, tmp_path / "built"))
    assert len(asked) == 4
    for path in (tmp_path / "built").rglob("*.gz"):
        other = tmp_path / "again" / path.relative_to(tmp_path / "built")
        assert path.read_bytes() == other.read_bytes()


def test_a_file_that_people_fetched_is_as_good(folder, tmp_path, host):
    place = tmp_path / "built"
    for name, body in RUNS.items():
        (place / name).parent.mkdir(parents=True)
        (place / name).write_bytes(body)  # not even packed
    list(build_data.build(folder, place))
    assert host[1] == []
    (place / "runs/a.run.gz").write_bytes(b"q0 Q0 d1 1 2.0 other\n")
    with pytest.raises(ConfigError, match=r"a.run.gz: expected 40 bytes with SHA-256 .*, found 21"):
        list(build_data.build(folder, place))


def test_what_cannot_be_fetched_or_is_another_file_leaves_nothing(folder, tmp_path):
    first, *others = folder.files
    gone = dataclasses.replace(first, url=f"{first.url}.gone")
    place = tmp_path / "built"
    with pytest.raises(ConfigError, match=r"gone cannot be fetched \(HTTP Error 404.*put it at"):
        list(build_data.build(dataclasses.replace(folder, files=(gone, *others)), place))
    other = dataclasses.replace(first, sha256="0" * 64)
    with pytest.raises(ConfigError, match="expected 40 bytes with SHA-256 0000"):
        list(build_data.build(dataclasses.replace(folder, files=(other, *others)), place))
    assert [path for path in place.rglob("*") if path.is_file()] == []


def test_a_passage_that_the_collection_lacks_is_named(folder, tmp_path, monkeypatch):
    place = tmp_path / "built"
    (tmp_path / "whole" / "corpus.jsonl").write_text('{"_id": "d0", "text": "x"}\n')
    with pytest.raises(ConfigError, match="lacks 2 of 3 documents that the runs list, such as d1"):
        list(build_data.build(folder, place))
    assert not (place / "corpus.jsonl.gz").exists()


def test_files_that_people_must_fetch_are_listed_and_remembered(tmp_path):
    files = tuple(PublishedFile(name, f"host of {name}") for name in ("a.tsv", "b.tsv"))
    folder = PublishedFolder("byhand", files)
    list(build_data.build(folder, tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "a.tsv").write_text("1\n")
    assert list(build_data.build(folder, tmp_path)) == [
        f"byhand: 1 of 2 files are in {tmp_path}",
        "  missing  b.tsv  from host of b.tsv",
    ]
    assert list(build_data.sources(folder, tmp_path))[1:] == [
        "  there    a.tsv  from host of a.tsv",
        "  missing  b.tsv  from host of b.tsv",
    ]
    (tmp_path / "a.tsv").write_text("2\n")
    with pytest.raises(ConfigError, match=r"a\.tsv: expected the file that was first seen on 20"):
        list(build_data.build(folder, tmp_path))


# ---- the folders of shipped recipes


def test_an_error_says_how_to_get_the_folder(tmp_path, monkeypatch):
    words = (
        "`raypipe data msmarco-dl` builds it of 7 files from github.com/castorini/rank_llm and the "
        "passages of msmarco-passage by ir_datasets"
    )
    with pytest.raises(ConfigError, match="no folder at") as caught:
        open_dataset(f"beir:{tmp_path}/msmarco-dl", "dl20").check()
    assert words in str(caught.value)
    with pytest.raises(ConfigError, match="not there; `raypipe data msmarco-dl` builds it of 7"):
        check_files([f"{tmp_path}/msmarco-dl/runs/bm25.dl19.run.gz"])
    (tmp_path / "msmarco-dl").mkdir()
    with pytest.raises(ConfigError, match=r"expected corpus.jsonl .*; `raypipe data msmarco-dl`"):
        open_dataset(f"beir:{tmp_path}/msmarco-dl", "dl20").check()
    with pytest.raises(ConfigError, match="`raypipe data msmarco` says which files to fetch from"):
        check_files([f"{tmp_path}/msmarco/colbertv2.dl.run.gz"])
    assert sentence_on(tmp_path / "msmarco") is None  # a folder of the user's own
    assert sentence_on(tmp_path / "msmarco" / "mine.run") is None


def test_recipes_name_only_files_that_are_listed():
    recipes = Path(__file__).resolve().parents[2] / "jobs" / "recipes"
    text = "".join(path.read_text("utf-8") for path in recipes.rglob("*.yaml"))
    for folder in FOLDERS.values():
        named = {
            name.rstrip(".")
            for name in published_paths(text, folder.name)
            if Path(name.rstrip(".")).suffix
        }
        assert named == {file.path for file in folder.files}


def published_paths(text: str, folder: str) -> set[str]:
    """What stands behind the folder's name in a path."""
    before = r"\}" if FOLDERS[folder].below_data else "~"
    return set(re.findall(rf"{before}/{folder}/([\w./-]+)", text))


def test_no_folder_has_the_name_of_a_data_set():
    assert not FOLDERS.keys() & set(ir_datasets.registry)
    for folder in FOLDERS.values():
        for dataset in (folder.documents, *folder.splits.values()):
            assert dataset is None or ir_datasets.load(dataset)


def test_where_recipes_look(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("RAYPIPE_DATA", raising=False)
    assert str(public_files.MSMARCO_DL.folder) == "/home/me/raypipe-data/msmarco-dl"
    assert str(public_files.MSMARCO.folder) == "/home/me/msmarco"
    monkeypatch.setenv("RAYPIPE_DATA", "/data")
    assert str(public_files.MSMARCO_DL.folder) == "/data/msmarco-dl"


SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "msmarco-dl"


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
def test_orders_of_language_models_are_those_that_recipes_were_run_with(tmp_path):
    """The sums were taken of files with another history; runs there have another tag."""
    from raypipe.datasets.fetching import check_content

    for file in public_files.MSMARCO_DL.files:
        if file.path.startswith("llm/"):
            shutil.copy(SHARED / file.path, tmp_path / "run.gz")
            assert check_content(file, tmp_path / "run.gz") == (file.size, file.sha256)
