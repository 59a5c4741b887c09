"""What shipped recipes read that is not shipped: folders of public files (each file's source, size
and checksum) and teachers that another recipe trains.

`raypipe data NAME` builds such a folder, or says what is missing; an error about a path in one says
so. The sources were read in a copy of their repositories: no test has fetched them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class PublishedFile:
    """One file of a folder."""

    path: str
    """Below the folder; what is named .gz is packed here, whatever the source has."""
    source: str
    """Where it comes from, for people."""
    url: str | None = None
    """Where raypipe fetches it; None where people must."""
    sha256: str | None = None
    """Of the content, unpacked; None: recorded when the file is first seen."""
    size: int | None = None
    """Bytes of the content, unpacked."""


def data_root() -> Path:
    """Where recipes look for folders: `$RAYPIPE_DATA`, default ~/raypipe-data."""
    return Path(os.environ.get("RAYPIPE_DATA") or "~/raypipe-data").expanduser()


@dataclass(frozen=True)
class PublishedFolder:
    """A folder that recipes name."""

    name: str
    files: tuple[PublishedFile, ...]
    below_data: bool = False
    """Whether it lies below $RAYPIPE_DATA, or in the user's home."""
    documents: str | None = None
    """The ir_datasets id with the passages; those that the runs list become corpus.jsonl.gz. None:
    the files are all, and raypipe fetches none."""
    splits: Mapping[str, str] = field(default_factory=dict)
    """The ir_datasets id with the queries and judgements of each split."""

    @property
    def folder(self) -> Path:
        """Where recipes look for it."""
        return (data_root() if self.below_data else Path("~").expanduser()) / self.name

    @property
    def sentence(self) -> str:
        """How to get it, and from where."""
        sources = ", ".join(dict.fromkeys(file.source for file in self.files))
        if self.documents is None:
            return f"`raypipe data {self.name}` says which files to fetch from where"
        return (
            f"`raypipe data {self.name}` builds it of {len(self.files)} files from {sources} and "
            f"the passages of {self.documents} by ir_datasets"
        )


def _rank_llm(path: str, commit: str, name: str, size: int, sha256: str) -> PublishedFile:
    """A run in the history of RankLLM's repository (Apache-2.0)."""
    repository = "castorini/rank_llm"
    url = f"https://raw.githubusercontent.com/{repository}/{commit}/{name}"
    return PublishedFile(path, f"github.com/{repository}", url, sha256, size)


_VICUNA = "output_v2_aug_vicuna_7b_4096_100_PromptMode.RANK_GPT_dl20"
_DISTILLM = "zenodo.org/records/12528410 (Rank-DistiLLM)"
_RANKGPT = "the README of github.com/sunnweiwei/RankGPT"


def _own_run(path: str, retriever: str, queries: str) -> PublishedFile:
    """A run that people must make."""
    return PublishedFile(path, f"no public file is known: a TREC run of {retriever} over {queries}")


_DEV, _DL = "msmarco-passage/dev/small", "trec-dl-2019 and trec-dl-2020"

MSMARCO_DL = PublishedFolder(
    "msmarco-dl",
    (
        _rank_llm(
            "runs/bm25.dl19.run.gz",
            "916102c7de2f7348a64427b89300946657997098",
            "retrieve_results/BM25/trec_results_dl19.txt",
            190_529,
            "cbada2e4f710f8cafb8f1fd54e2289011b3273cdc044adb2380af21f63a6c861",
        ),
        _rank_llm(
            "runs/bm25.dl20.run.gz",
            "916102c7de2f7348a64427b89300946657997098",
            "retrieve_results/BM25/trec_results_dl20.txt",
            240_316,
            "fba5d55aa8335bd1c74f7860dee354e69986b627c640b34ba47e084e311c24d2",
        ),
        _rank_llm(
            "runs/splade.dl19.run.gz",
            "381a6f0e71b58baf73bd2165f611e016b9bece02",
            "retrieve_results/SPLADE_P_P_ENSEMBLE_DISTIL/trec_results_dl19.txt",
            147_985,
            "5e09e4219740fd9b2a57637fccf6d00932c938c47a07b97ce0852c0b2596a4e1",
        ),
        _rank_llm(
            "runs/splade.dl20.run.gz",
            "916102c7de2f7348a64427b89300946657997098",
            "retrieve_results/SPLADE_P_P_ENSEMBLE_DISTIL/trec_results_dl20.txt",
            186_223,
            "24062fcd8b8dfdf9f2710907c786541c870e8463d5dadea6b9e903821694918e",
        ),
        _rank_llm(
            "llm/rankvicuna.splade.dl20.run.gz",
            "a372617b3e2a019f74520061e54595f6a1b92fa1",
            f"rerank_results/SPLADE_P_P_ENSEMBLE_DISTIL/{_VICUNA}_2023-09-13T12:31:08.378606.txt",
            186_223,
            "34bf07a4e01cf9d141ff6e90889969bbebb5973c3a6659a844bc26fbc2f62ad5",
        ),
        _rank_llm(
            "llm/rankvicuna.bm25.dl20.run.gz",
            "51ba97a3971651df29c158f0d1d19c46f7087917",
            f"rerank_results/BM25/{_VICUNA}_2023-09-12T18:45:30.187950.txt",
            240_316,
            "4460ab8fbf7702d124309f0d859e288e987ecb42b9713a5fdd511684c2d5095e",
        ),
        _rank_llm(
            "llm/gpt-3.5.bm25.dl20.run.gz",
            "381a6f0e71b58baf73bd2165f611e016b9bece02",
            "rerank_results/BM25/gpt-3.5-turbo_4096_PromptMode.RANK_GPT_dl20_"
            "2023-08-05T22:40:56.974548.txt",
            240_316,
            "4d32f3e5ff8f1397b3ad9d3b2de247d116d8baeab0553f6eff54dd308f11b447",
        ),
    ),
    below_data=True,
    documents="msmarco-passage",
    splits={
        "dl19": "msmarco-passage/trec-dl-2019/judged",
        "dl20": "msmarco-passage/trec-dl-2020/judged",
    },
)
"""97 queries of TREC DL with two first stages and two language models' orders of DL 2020."""

MSMARCO = PublishedFolder(
    "msmarco",
    (
        PublishedFile(
            "bert_cat_ensemble_msmarcopassage_train_scores_ids.tsv",
            "zenodo.org/records/4068216, the file of this name",
        ),
        PublishedFile(
            "colbertv2.train.run.gz",
            f"{_DISTILLM}, __colbert__msmarco-passage-train-judged.run",
        ),
        PublishedFile(
            "rankzephyr.colbertv2.train-10k.run.gz",
            f"{_DISTILLM}, __rankzephyr-colbert-10000-sampled-100__msmarco-passage-train-judged"
            ".run",
        ),
        PublishedFile("marco-train-100k.jsonl", _RANKGPT),
        PublishedFile("marco-train-100k-gpt3.5.json", _RANKGPT),
        _own_run("colbertv2.dev.run.gz", "ColBERTv2", _DEV),
        _own_run("colbertv2.dl.run.gz", "ColBERTv2", _DL),
        _own_run("contriever.dev.run.gz", "Contriever", _DEV),
        _own_run("contriever.dl.run.gz", "Contriever", _DL),
        _own_run("splade-v3-distilbert.dev.run.gz", "SPLADE-v3-DistilBERT", _DEV),
        _own_run("splade-v3-distilbert.dl.run.gz", "SPLADE-v3-DistilBERT", _DL),
    ),
)
"""What the recipes of published settings read beside ir_datasets."""

_LOGITS = "no public file is known: RankT5-3B's logits, `query_id doc_id score`, of the lists of"

CADET = PublishedFolder(
    "cadet",
    (
        PublishedFile(
            "demonstrations.jsonl",
            "no public file is known: passages with a query of each type that people wrote",
        ),
        PublishedFile("rankt5-3b.tsv", f"{_LOGITS} cadet.yaml and cadet-controlled.yaml"),
        PublishedFile("rankt5-3b.msmarco.tsv", f"{_LOGITS} cadet-general.yaml over MS MARCO"),
        PublishedFile("rankt5-3b.dbpedia.tsv", f"{_LOGITS} it over DBpedia"),
        PublishedFile("rankt5-3b.climate-fever.tsv", f"{_LOGITS} it over Climate-FEVER"),
    ),
    below_data=True,
)
"""A teacher's scores and demonstrations of the recipes cadet, which are one's own to make."""

FOLDERS = {folder.name: folder for folder in (MSMARCO_DL, MSMARCO, CADET)}
"""By the name that `raypipe data` takes."""

TRAINED = ("teacher-pydoc", "teacher-scifact")
"""Teachers of shipped studies, below $RAYPIPE_DATA; a recipe of the same name trains each."""


OWN_DOCUMENTS = (
    "it is for documents of your own: put corpus.jsonl there, or name yours as data.train.dataset, "
    "data.validation.dataset and data.test.dataset; `raypipe data ID` shows what is read of them"
)
"""On a folder that a recipe without labels reads."""


def sentence_on(path: Path) -> str | None:
    """How to get a path that is not there; None if it is none of these folders'.

    A folder of the user's own may be called msmarco, so of what raypipe does not build only the
    files count.
    """
    parts = Path(path).parts
    if Path(path).name in TRAINED:
        recipe = f"jobs/recipes/studies/{Path(path).name}.yaml"
        return f"`raypipe train {recipe} --export {path}` makes it"
    for folder in FOLDERS.values():
        inside = {(folder.name, *Path(file.path).parts) for file in folder.files}
        if folder.documents is not None:
            inside |= {
                (folder.name, *below) for below in ((), ("corpus.jsonl",), ("queries.jsonl",))
            }
        if any(parts[-len(names) :] == names for names in inside):
            return folder.sentence
    if Path(path).absolute() == (data_root() / "corpus").absolute():
        return OWN_DOCUMENTS
    return None
