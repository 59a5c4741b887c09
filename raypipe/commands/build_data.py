"""Builds a folder of public files that recipes name, or says what is missing of it."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raypipe.config import ConfigError
from raypipe.datasets.beir import QRELS_HEADER
from raypipe.datasets.dataset import Dataset
from raypipe.datasets.fetching import check_content, fetch
from raypipe.datasets.ir import open_dataset
from raypipe.progress import counting
from raypipe.public_files import FOLDERS, PublishedFile, PublishedFolder
from raypipe.storage.files import open_bytes
from raypipe.tables.json_text import parse_json

SOURCES = "sources.json"
"""What each file of a folder is: written when it is first seen, compared ever after."""


def published_folder(name: str | None) -> PublishedFolder | None:
    """The folder of that name; None for ids of data sets."""
    return FOLDERS.get(name or "")


def sources(folder: PublishedFolder, place: Path) -> Iterator[str]:
    """Which files come from where, and which are there. Nothing is fetched or written."""
    yield f"{folder.name}: {place}"
    for file in folder.files:
        state = "there" if (place / file.path).is_file() else "missing"
        size = "" if file.size is None else f", {file.size:,} bytes"
        yield f"  {state:7}  {file.path}  from {file.url or file.source}{size}"
    for split, dataset in folder.splits.items():
        yield f"  {_state(place / _qrels(split))}  {_qrels(split)}  from {dataset} of ir_datasets"
    if folder.documents is not None:
        passages = f"the passages of {folder.documents} that the runs list, by ir_datasets"
        yield f"  {_state(place / 'corpus.jsonl.gz')}  corpus.jsonl.gz  from {passages}"


def build(folder: PublishedFolder, place: Path) -> Iterator[str]:
    """Fetch and write what is missing; what is there is checked.

    Files that people fetched themselves are as good. The corpus is written last, so that a folder
    with one is whole.

    Returns:
        Lines on what was done.

    Raises:
        ConfigError: a file cannot be fetched, or is another one than was published or first seen.
    """
    for file in folder.files:
        if file.url is not None:
            fetch(file, place / file.path)
    seen = [_seen(file, place) for file in folder.files if (place / file.path).is_file()]
    if seen:
        _record(place, {entry["path"]: entry for entry in seen})
    missing = [file for file in folder.files if not (place / file.path).is_file()]
    yield f"{folder.name}: {len(seen)} of {len(folder.files)} files are in {place}"
    yield from (f"  missing  {file.path}  from {file.source}" for file in missing)
    if folder.documents is not None:
        _write_queries(folder, place)
        corpus = place / "corpus.jsonl.gz"
        if not corpus.is_file():
            _write_passages(open_dataset(folder.documents), _listed(folder, place), corpus)
        yield f"{folder.name}: queries, judgements and passages are there too; nothing is missing"


def _state(path: Path) -> str:
    return f"{'there' if path.is_file() else 'missing':7}"


def _qrels(split: str) -> str:
    return f"qrels/{split}.tsv"


def _seen(file: PublishedFile, place: Path) -> dict[str, Any]:
    """What a file is."""
    size, sha256 = check_content(file, place / file.path)
    source = {"source": file.source, **({"url": file.url} if file.url else {})}
    return {"path": file.path, **source, "bytes": size, "sha256": sha256}


def _record(place: Path, seen: dict[str, dict[str, Any]]) -> None:
    """Write down what was not seen before; refuse what was seen as something else."""
    path = place / SOURCES
    known = parse_json(path.read_bytes()) if path.is_file() else {}
    for name, entry in seen.items():
        if name in known and known[name]["sha256"] != entry["sha256"]:
            raise ConfigError(
                f"{place / name}: expected the file that was first seen on {known[name]['seen']} "
                f"(SHA-256 {known[name]['sha256'][:16]}), found {entry['sha256'][:16]}; put that "
                f"one back, or remove {path} if the new one is right"
            )
        known.setdefault(name, {**entry, "seen": time.strftime("%Y-%m-%d", time.gmtime())})
    path.write_text(json.dumps(known, indent=1) + "\n", "utf-8")


def _write_queries(folder: PublishedFolder, place: Path) -> None:
    """queries.jsonl and qrels/SPLIT.tsv, as BEIR has them."""
    texts: dict[str, str] = {}
    (place / "qrels").mkdir(exist_ok=True)
    for split, dataset in folder.splits.items():
        data = open_dataset(dataset)
        texts |= dict(data.queries())
        rows = ["\t".join(QRELS_HEADER), *("\t".join(map(str, row)) for row in data.qrels())]
        (place / _qrels(split)).write_text("\n".join(rows) + "\n", "utf-8")
    lines = [json.dumps({"_id": query, "text": text}) + "\n" for query, text in texts.items()]
    (place / "queries.jsonl").write_text("".join(lines), "utf-8")


def _listed(folder: PublishedFolder, place: Path) -> set[str]:
    """The documents of all runs."""
    found: set[str] = set()
    for file in folder.files:
        with open_bytes(place / file.path) as stream:
            found.update(line.split()[2].decode() for line in stream if line.strip())
    return found


def _write_passages(data: Dataset, wanted: set[str], path: Path) -> None:
    """The wanted documents, in the collection's order, which is read whole.

    Raises:
        ConfigError: the collection lacks one.
    """
    part, missing = path.with_name(f".{path.name}.part"), set(wanted)
    with (
        counting("passages", data.docs_count()) as at,
        part.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as sink,
    ):
        for number, (doc_id, text) in enumerate(data.docs(), start=1):
            if doc_id in missing:
                missing.discard(doc_id)
                row = {"_id": doc_id, "title": "", "text": text}
                sink.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            at(number)
    if missing:
        part.unlink()
        raise ConfigError(
            f"{path}: {data.name} lacks {len(missing)} of {len(wanted)} documents that the runs "
            f"list, such as {min(missing)}; empty ir_datasets' cache of it and run this again"
        )
    part.replace(path)
