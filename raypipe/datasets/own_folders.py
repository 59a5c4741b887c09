"""Folders as MS MARCO and TREC publish them, by the usual names of their files.

`msmarco:/folder` with split `train`, `dev` or `dev.small` has collection.tsv, queries.SPLIT.tsv and
qrels.SPLIT.tsv; without a split, queries.tsv and qrels.tsv; or, for documents, msmarco-docs.tsv,
msmarco-docSPLIT-queries.tsv and -qrels.tsv.
`trec:/folder` has collection*, topics* and qrels*; a split says which of several topics and qrels.
"""

from __future__ import annotations

from pathlib import Path

from raypipe.config import ConfigError, nearest
from raypipe.datasets.own_files import OwnFiles, files_id
from raypipe.storage.files import near_names

_TREC = {"corpus": ("collection", "corpus", "docs"), "queries": ("topics", "queries")}
"""How names of files begin, by part; those of judgements begin with qrels."""


def msmarco(folder: str, split: str | None) -> OwnFiles:
    """One split of MS MARCO's files, or their only queries and judgements where no split is named.

    Raises:
        ConfigError: no such folder or file, or no split was named where there are several.
    """
    dataset = f"msmarco:{folder}"
    place = _folder(dataset, folder)
    documents = _one_of(place, "msmarco-docs.tsv") is not None
    if split is None and not documents and (queries := _one_of(place, "queries.tsv")):
        corpus = _named(dataset, place, "collection.tsv")
        return OwnFiles(files_id(corpus=corpus, queries=queries, qrels=_one_of(place, "qrels.tsv")))
    before, after = ("msmarco-doc", "-queries.tsv") if documents else ("queries.", ".tsv")
    names = [path.name.removesuffix(".gz") for path in sorted(place.glob(f"{before}*{after}*"))]
    splits = list(dict.fromkeys(n.removeprefix(before).removesuffix(after) for n in names))
    if split not in splits:
        found = f"found {split!r}" if split else "found none"
        near = nearest(split or "", splits) or f"; {place} has no {before}SPLIT{after}"
        if split and not documents and _one_of(place, "queries.tsv"):
            near = (
                "; queries.tsv is of no split: leave `split` out, and part it by `limit` and `skip`"
            )
        raise ConfigError(f"dataset {dataset}: expected a split, {found}{near}")
    corpus = "msmarco-docs.tsv" if documents else "collection.tsv"
    qrels = f"msmarco-doc{split}-qrels.tsv" if documents else f"qrels.{split}.tsv"
    paths = {"corpus": _named(dataset, place, corpus)}
    paths["queries"] = _named(dataset, place, f"{before}{split}{after}")
    return OwnFiles(files_id(**paths, qrels=_one_of(place, qrels)))


def trec(folder: str, split: str | None) -> OwnFiles:
    """A collection with topics and judgements.

    Raises:
        ConfigError: no such folder; a part is missing, or there are several.
    """
    dataset = f"trec:{folder}"
    place = _folder(dataset, folder)
    paths = {part: _only(dataset, place, part, heads, split) for part, heads in _TREC.items()}
    judged = any(path.name.startswith("qrels") for path in place.iterdir())
    qrels = _only(dataset, place, "qrels", ("qrels",), split) if judged else None
    return OwnFiles(files_id(**paths, qrels=qrels))


def _only(dataset: str, place: Path, part: str, heads: tuple[str, ...], split: str | None) -> Path:
    """The one file, or folder of documents, of a part."""
    paths = [p for p in sorted(place.iterdir()) if p.name.lower().startswith(heads)]
    if part != "corpus" and split is not None:
        paths = [p for p in paths if split in p.name]
    if len(paths) == 1:
        return paths[0]
    names = ", ".join(path.name for path in paths) or "none"
    several = "" if part == "corpus" or not paths else " set split to a part of one's name, or"
    raise ConfigError(
        f"dataset {dataset}: expected one file {heads[0]}*, found {names};{several} name the "
        "files: trec:collection=FILE,topics=FILE,qrels=FILE"
    )


def _folder(dataset: str, folder: str) -> Path:
    place = Path(folder).expanduser()
    if not place.is_absolute():
        raise ConfigError(
            f"dataset {dataset}: expected an absolute path (a submitted job runs elsewhere), as "
            f"in {place.absolute()}"
        )
    if not place.is_dir():
        raise ConfigError(f"dataset {dataset}: no folder there{near_names(place, '*/')}")
    return place


def _one_of(place: Path, name: str) -> Path | None:
    return next((p for p in (place / name, place / f"{name}.gz") if p.is_file()), None)


def _named(dataset: str, place: Path, name: str) -> Path:
    if path := _one_of(place, name):
        return path
    raise ConfigError(
        f"dataset {dataset}: expected {name} or {name}.gz, found neither"
        f"{near_names(place / name)}; or name the files: files:corpus=FILE,queries=FILE,qrels=FILE"
    )
