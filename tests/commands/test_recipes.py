"""The recipes of published settings, mined end to end: small data, everything else as published.

On the tests' small collection in the main suite; on MS MARCO passages with published runs and
language models' orders where ../shared is there.
"""

from __future__ import annotations

import functools
import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raypipe.commands.mine import run
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load, parse_yaml
from raypipe.train.group_reader import GroupReader

pytestmark = pytest.mark.ray

RECIPES = Path(__file__).resolve().parents[2] / "jobs" / "recipes"
MARCO = Path(__file__).resolve().parents[3] / "shared" / "data" / "msmarco-dl"
PUBLISHED = ["multistage", "rank-distillm", "ensemble-margin-mse", "objectives-x-backbones"]
Run = dict[str, list[str]]


class Files:
    """Published files of a small data set, in the formats that the recipes name."""

    def __init__(
        self, folder: Path, split: str, train: Run, test: Run, judged: Run, llm: Run
    ) -> None:
        self.folder, self.split = folder, split
        self.retrieved = self._run("retrieved", train)
        self.tested = self._run("tested", test)
        self.judged = self._run("judged", judged)
        self.orders = self._run("orders", llm)
        self._rankgpt(train, llm)

    def _run(self, name: str, rankings: Run) -> str:
        path = self.folder / f"{name}.run.gz"
        lines = [
            f"{q} Q0 {d} {rank} {-rank} {name}\n"
            for q, docs in rankings.items()
            for rank, d in enumerate(docs, start=1)
        ]
        path.write_bytes(gzip.compress("".join(lines).encode()))
        return str(path)

    def _rankgpt(self, train: Run, llm: Run) -> None:
        """The first 20 as the model saw them, and its order of them."""
        self.lists = str(self.folder / "lists.jsonl")
        self.permutations = str(self.folder / "permutations.json")
        rows, answers = [], []
        for query_id, docs in train.items():
            seen = docs[:20]
            passages = [{"docid": d, "rank": i} for i, d in enumerate(seen, start=1)]
            rows.append(json.dumps({"query_id": query_id, "retrieved_passages": passages}))
            order = [d for d in llm.get(query_id, []) if d in seen]
            answers.append(" > ".join(f"[{seen.index(d) + 1}]" for d in order) or "I can't.")
        Path(self.lists).write_text("\n".join(rows) + "\n")
        Path(self.permutations).write_text(json.dumps(answers))

    def triples(self, train: Run, positives: dict[str, list[str]]) -> None:
        """Scored triples: the score of a document falls with its rank."""
        self.ensemble, self.ids = str(self.folder / "e.tsv"), str(self.folder / "t.tsv")
        with open(self.ensemble, "w") as scored, open(self.ids, "w") as plain:
            for q, docs in train.items():
                negatives = [d for d in docs if d not in positives[q]][:5]
                for positive, negative in [(p, n) for p in positives[q][:2] for n in negatives]:
                    scores = [
                        9 - docs.index(d) / 9 if d in docs else 8 for d in (positive, negative)
                    ]
                    scored.write(f"{scores[0]}\t{scores[1]}\t{q}\t{positive}\t{negative}\n")
                    plain.write(f"{q}\t{positive}\t{negative}\n")

    def overrides(self, recipe: str) -> list[str]:
        """The same recipe on these files."""
        bm25 = recipe in ("multistage", "ensemble-margin-mse")
        own = ["evaluation.suites=[]"]
        if recipe == "objectives-x-backbones":  # its first stage has no training query
            own += [f"candidates.paths=[{self.judged}]"]
        elif not bm25:
            own += [f"candidates.paths=[{self.retrieved}, {self.tested}]"]
        if recipe == "multistage":
            own += [f"stages.contrastive.groups.candidates.paths=[{self.retrieved}]"]
            for name in ("distil", "distil_6e-12"):
                groups = f"stages.{name}.groups"
                own += [
                    f"{groups}.queries={self.split}",
                    f"{groups}.candidates.path={self.lists}",
                    f"{groups}.teacher.lists={self.lists}",
                    f"{groups}.teacher.permutations={self.permutations}",
                ]
        if recipe == "rank-distillm":
            own += [*self._orders("stages.ranknet.groups"), *self._orders("stages.adr_mse.groups")]
        if recipe == "ensemble-margin-mse":
            own += [f"groups.triples.path={self.ensemble}"]
            own += [f"groups.teacher.paths=[{self.ensemble}]"]
        if recipe == "objectives-x-backbones":
            for name in ("bce", "hinge"):
                own.append(f"stages.{name}.groups.triples={{type: triples, path: {self.ids}}}")
            own += [
                f"stages.margin_mse.groups.triples.path={self.ensemble}",
                f"stages.margin_mse.groups.teacher.paths=[{self.ensemble}]",
                f"stages.infonce.groups.candidates.paths=[{self.retrieved}]",
                *self._orders("stages.ranknet.groups"),
                *self._orders("stages.adr_mse.groups"),
            ]
        return own

    def _orders(self, groups: str) -> list[str]:
        return [
            f"{groups}.queries={self.split}",
            f"{groups}.candidates.paths=[{self.orders}]",
            f"{groups}.teacher.paths=[{self.orders}]",
        ]


def mine(recipe: str, data: list[str], files: Files, storage: Path) -> dict[str, Any]:
    """Groups by the stages that train on them, and every counter."""
    queries = parse_yaml(data[-1].removeprefix("data.test="))
    candidates = {"type": "trec_run", "paths": [files.tested], "depth": 1000}
    test = json.dumps({"queries": queries, "candidates": candidates})
    sets = "evaluation.sets={other: " + test + "}"
    given = [*data, sets, *files.overrides(recipe), f"storage={storage}"]
    experiment = load(Experiment, RECIPES / f"{recipe}.yaml", given)
    mined = run(experiment, lambda line: print(line))
    readers = {
        name.removeprefix("groups of "): GroupReader(artifact.local())
        for name, artifact in mined.artifacts.items()
        if name.startswith("groups of ")
    }
    return {"groups": readers, **mined.summary()}


def check(recipe: str, found: dict[str, Any]) -> None:
    """What the papers' settings say of the groups."""
    groups, counts = found["groups"], found["counts"]
    if recipe == "multistage":
        assert groups["contrastive"].largest <= 100 and not groups["contrastive"].has_teacher
        distil = "distil, distil_6e-12"  # one artifact: the two differ in their learning rate
        assert groups[distil].largest <= 20 and groups[distil].has_teacher
        assert counts[f"teacher scores of {distil}"]["lists"] > 0
    elif recipe == "rank-distillm":
        assert groups["contrastive"].largest == 8
        distil = groups["ranknet, adr_mse"]
        assert distil.has_teacher and distil.largest > 8
    elif recipe == "ensemble-margin-mse":
        assert groups["distil"].largest == 2 and groups["distil"].has_teacher
        assert counts["teacher scores of distil"]["documents_without_value"] == 0
    else:
        assert set(groups) == {"bce, hinge", "margin_mse", "infonce", "ranknet, adr_mse"}
        assert groups["bce, hinge"].largest == 2 and not groups["bce, hinge"].has_teacher
        assert groups["margin_mse"].has_teacher
        assert groups["infonce"].largest == 8
        assert groups["ranknet, adr_mse"].has_teacher
    assert all(len(reader) > 0 for reader in groups.values())


@pytest.fixture(scope="module")
def small(tmp_path_factory, beir_folder) -> tuple[list[str], Files]:
    """Rankings of the small collection: the draft, the relevant document, then others."""

    def rankings(queries: range) -> Run:
        others = {i: [f"d{(i + j) % 120:03d}" for j in range(1, 60)] for i in queries}
        return {f"q{i:02d}": [f"d{60 + i:03d}", f"d{i:03d}", *others[i]] for i in queries}

    train = {q: list(dict.fromkeys(docs)) for q, docs in rankings(range(48)).items()}
    test = {q: list(dict.fromkeys(docs)) for q, docs in rankings(range(48, 60)).items()}
    llm = {q: [docs[1], docs[0], *docs[2:40][::-1]] for q, docs in train.items()}
    split = f"{{dataset: 'beir:{beir_folder}', split: train}}"
    judged = {q: docs for q, docs in train.items() if int(q[1:]) >= 36} | test
    files = Files(tmp_path_factory.mktemp("published"), split, train, test, judged, llm)
    files.triples(
        {q: docs for q, docs in train.items() if int(q[1:]) < 36},
        {q: [f"d0{q[1:]}"] for q in train},
    )
    data = [f"data.{r}={{dataset: 'beir:{beir_folder}', split: {r}}}"
            for r in ("train", "validation", "test")]  # fmt: skip
    return data, files


Mine = Callable[[str], dict[str, Any]]


def miner(data: list[str], files: Files, storage: Path) -> Mine:
    """Mines a recipe once; what two recipes have in common is made once, too."""
    return functools.cache(lambda recipe: mine(recipe, data, files, storage))


@pytest.fixture(scope="module")
def mine_small(cluster, small, tmp_path_factory) -> Mine:
    return miner(*small, tmp_path_factory.mktemp("small"))


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_the_recipe_is_mined(mine_small, recipe):
    found = mine_small(recipe)
    check(recipe, found)
    lists = {name: len(reader) for name, reader in found["groups"].items()}
    if recipe == "multistage":
        assert lists == {"contrastive": 36, "distil, distil_6e-12": 36}
    elif recipe == "ensemble-margin-mse":
        assert lists == {"distil": 36 * 5}
    (test_counts,) = [c for n, c in found["counts"].items() if n == "test candidates"]
    assert test_counts["candidates"] > 0


def test_the_published_teacher_is_measured_where_it_can_be(mine_small):
    (quality,) = mine_small("rank-distillm")["teachers"]
    # the model puts the relevant document first, the retrieval second: 1 against 1 / log2(3)
    assert quality["teacher_value"] == pytest.approx(1.0)
    assert quality["lists_value"] == pytest.approx(1.0)  # its lists are in its own order
    assert quality["evaluated_value"] == pytest.approx(0.6309, abs=1e-4)


def read_run(path: Path) -> Iterator[tuple[str, str]]:
    with gzip.open(path, "rt") as lines:
        for line in lines:
            fields = line.split()
            yield fields[0], fields[2]


def rankings_of(name: str) -> Run:
    out: Run = {}
    for query_id, doc_id in read_run(MARCO / f"{name}.run.gz"):
        out.setdefault(query_id, []).append(doc_id)
    return out


@pytest.fixture(scope="module")
def marco(tmp_path_factory) -> tuple[list[str], Files]:
    """dl20 to train (42 queries) and validate (12), dl19 to test."""
    if not MARCO.is_dir():
        pytest.skip("../shared/data/msmarco-dl is not there")
    train, test = rankings_of("runs/colbert.dl20"), rankings_of("runs/colbert.dl19")
    llm = rankings_of("llm/rankvicuna.splade.dl20")
    folder = tmp_path_factory.mktemp("marco")
    split = f"{{dataset: 'beir:{MARCO}', split: dl20, skip: 12, positive_relevance: 2}}"
    files = Files(folder, split, train, test, train | test, llm)
    qrels: dict[str, list[str]] = {q: [] for q in train}
    for line in (MARCO / "qrels" / "dl20.tsv").read_text().splitlines()[1:]:
        query_id, doc_id, relevance = line.split("\t")
        if int(relevance) >= 2 and doc_id in train.get(query_id, []):
            qrels[query_id].append(doc_id)
    files.triples(train, qrels)
    data = [
        f"data.train={split}",
        f"data.validation={{dataset: 'beir:{MARCO}', split: dl20, limit: 12, "
        "positive_relevance: 2}",
        f"data.test={{dataset: 'beir:{MARCO}', split: dl19, positive_relevance: 2}}",
    ]
    return data, files


@pytest.fixture(scope="module")
def mine_marco(cluster, marco, tmp_path_factory) -> Mine:
    return miner(*marco, tmp_path_factory.mktemp("marco"))


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_the_recipe_is_mined_on_ms_marco(mine_marco, recipe):
    found = mine_marco(recipe)
    check(recipe, found)
    for quality in found["teachers"]:
        print(recipe, quality)
    if recipe == "rank-distillm":
        (quality,) = found["teachers"]
        assert quality["teacher_value"] > 0.6  # RankVicuna on 12 dl20 queries
        assert found["counts"]["groups of ranknet, adr_mse"]["groups"] <= 42


@pytest.fixture(scope="module")
def scifact() -> list[str]:
    home = MARCO.parents[1] / "ir_home" / "beir" / "scifact"
    if not home.is_dir():
        pytest.skip("../shared/ir_home/beir/scifact is not there")
    there = Path(os.environ["IR_DATASETS_HOME"]) / "beir" / "scifact"
    if not (there / "source.zip").exists():  # ir_datasets writes beside its files
        shutil.copytree(home, there, copy_function=shutil.copyfile, dirs_exist_ok=True)
        for folder in (there, *(p for p in there.rglob("*") if p.is_dir())):
            folder.chmod(0o755)
    return [
        "data.train={dataset: beir/scifact/train, skip: 100}",
        "data.validation={dataset: beir/scifact/train, limit: 100}",
        "data.test={dataset: beir/scifact/test}",
    ]


def test_scored_triples_of_scifact(cluster, scifact, tmp_path):
    """Ensemble MarginMSE on triples that are made from BM25's own lists of beir/scifact."""
    recipe = RECIPES / "ensemble-margin-mse.yaml"
    plain = ["groups={negatives: {type: top_k, count: 5}}", "stages.distil.loss={type: infonce}"]
    storage = f"storage={tmp_path}"
    bm25 = run(load(Experiment, recipe, [*scifact, *plain, storage]))
    negatives = bm25.artifacts["negatives of distil"].table().to_pylist()
    file = tmp_path / "scored.tsv"
    with file.open("w") as out:
        for row in negatives:
            positive, *others = row["doc_ids"]
            for rank, negative in enumerate(others):
                out.write(f"9.5\t{5 - rank}\t{row['query_id']}\t{positive}\t{negative}\n")
    given = [f"groups.triples.path={file}", f"groups.teacher.paths=[{file}]", storage]
    mined = run(load(Experiment, recipe, [*scifact, *given]))
    reader = GroupReader(mined.artifacts["groups of distil"].local())
    assert len(reader) == sum(len(row["doc_ids"]) - 1 for row in negatives) > 3000
    assert reader.has_teacher and reader.largest == 2
    for row in range(0, len(reader), 500):
        values = reader[row][3]
        assert values[0] == 9.5 and values[1] <= 5
    counts = bm25.artifacts["test candidates"].counts
    assert counts["rows"] == 300 and counts["candidates"] > 290 * 900
