from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import ValidationError
from six_documents import DEPTH

from raypipe.config import ConfigError
from raypipe.inference.lists import Lists
from raypipe.storage.artifacts import Step
from raypipe.teachers.published.pair_scores import DuoScores, PairScores
from raypipe.teachers.published.rankgpt import RankGptFile, RankGptOrders
from raypipe.teachers.published.run_file import RunFile, RunFileValues
from raypipe.teachers.published.scores import EnsembleScores, MonoScores, ScoreFile


@dataclass(frozen=True)
class Nothing(Step):
    kind = "candidates"
    name = "nothing"


LISTS: Any = Lists(Nothing(), None, Nothing(), Nothing(), 7)  # type: ignore[arg-type]
RUN = RunFile(paths=("a", "b"))
GPT = RankGptFile(lists="a", permutations="b")
MONO = MonoScores(paths=("a",))
DUO = DuoScores(paths=("a",), aggregation="sum")
ENSEMBLE = EnsembleScores(paths=("a",))
ALL = [RUN, GPT, MONO, DUO, ENSEMBLE]


@pytest.mark.parametrize(
    ("teacher", "step"),
    [
        (RUN, RunFileValues),
        (GPT, RankGptOrders),
        (MONO, ScoreFile),
        (DUO, PairScores),
        (ENSEMBLE, ScoreFile),
    ],
)
def test_each_config_names_its_step(teacher, step):
    assert teacher.scores(LISTS, "fp32") == step(teacher, LISTS)


def test_what_kind_of_values_each_gives():
    kinds = {teacher.type: teacher.values for teacher in ALL}
    assert kinds == {
        "run_file": "rank",
        "rankgpt": "rank",
        "mono_scores": "score",
        "duo_scores": "score",
        "ensemble_scores": "score",
    }
    assert RUN.replace(column="score").values == "score"
    # a document's wins are counted against the documents of the list alone
    assert [teacher.type for teacher in ALL if teacher.needs_lists] == ["duo_scores"]
    assert len({teacher.title for teacher in ALL}) == len(ALL)


@pytest.mark.parametrize("teacher", ALL, ids=lambda t: t.type)
def test_missing_files_suggest_the_one_beside_them(teacher, tmp_path):
    (tmp_path / "scores-2020.tsv").write_text("")
    missing = str(tmp_path / "scores-2002.tsv")
    there = str(tmp_path / "scores-2020.tsv")
    if teacher is GPT:
        broken, good = (
            {"lists": there, "permutations": missing},
            {"lists": there, "permutations": there},
        )
    else:
        broken, good = {"paths": (there, missing)}, {"paths": (there,)}
    with pytest.raises(
        ConfigError, match=r"scores-2002\.tsv: not there; did you mean 'scores-2020"
    ):
        teacher.replace(**broken).check()
    assert teacher.replace(**good).check() is None


@pytest.mark.parametrize("cls", [RunFile, MonoScores, DuoScores, EnsembleScores])
def test_no_files_is_no_teacher(cls):
    with pytest.raises(ValidationError, match="at least 1 item"):
        cls(paths=())


def test_what_decides_the_values_is_in_the_digest(lists, tmp_path):
    for name, text in (("a", "one"), ("copy", "one"), ("b", "two")):
        (tmp_path / name).write_text(text)
    a, copy, b = (str(tmp_path / name) for name in ("a", "copy", "b"))
    deeper = Lists(lists.candidates, lists.extra, lists.collection, lists.queries, DEPTH + 1)
    mono, duo, run = MonoScores(paths=(a,)), DuoScores(paths=(a,)), RunFile(paths=(a,))
    orders = RankGptFile(lists=a, permutations=b)

    def digest(teacher: Any, lists: Lists = lists) -> str:
        step: Step = teacher.scores(lists, "fp32")
        return step.digest

    assert digest(mono) == digest(MonoScores(paths=(copy,)))
    others = [
        digest(mono),
        digest(MonoScores(paths=(b,))),
        digest(MonoScores(paths=(a, b))),
        digest(EnsembleScores(paths=(a,))),
        digest(mono, deeper),
        digest(duo),
        digest(duo.replace(aggregation="sum")),
        digest(duo.replace(aggregation="sum"), deeper),
        digest(run),
        digest(run.replace(column="score")),
        digest(orders),
        digest(orders.replace(unparsable="keep")),
        digest(RankGptFile(lists=b, permutations=a, unparsable="keep")),
    ]
    assert len(set(others)) == len(others)
    # orders are of whole lists: the candidates do not decide them
    assert digest(run) == digest(run, deeper)
