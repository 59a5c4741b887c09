"""Small installations: what runs in them, and what the others are told."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from packaging.requirements import Requirement
from slim import PROJECT, brought, plain, program, refused, run

from raypipe import extras
from raypipe.program import COMMANDS

HEAVY = ("ray", "torch", "transformers", "mlflow", "bm25s", "numba", "optuna", "pandas", "aiohttp")
NEEDED = {
    "mine": "ray, torch and transformers: pip install 'raypipe[mine]'",
    "train": "ray, torch, transformers and mlflow-skinny: pip install 'raypipe[train]'",
    "sweep": "ray, torch, transformers and mlflow-skinny: pip install 'raypipe[train]'",
    "synthesize": "ray, torch and transformers: pip install 'raypipe[mine]'",
    "rerank": "ray, torch and transformers: pip install 'raypipe[mine]'",
    "retrieve": "ray, torch and transformers: pip install 'raypipe[mine]'",
    "export": "ray, torch, transformers and mlflow-skinny: pip install 'raypipe[train]'",
    "report": "mlflow-skinny: pip install 'raypipe[track]'",
    "paper": "mlflow-skinny: pip install 'raypipe[track]'",
    "ui": "mlflow: pip install 'raypipe[ui]'",
    "explain": "torch: pip install 'raypipe[mine]'",
}
WORDS = {
    "rerank": ["--model", "x"],
    "retrieve": ["--model", "bm25"],
    "export": ["folder"],
    "paper": ["--out", "folder"],
}
"""What a command line asks for before the command begins."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[str]:
    """Arguments of evaluate: judgements of 30 queries, and three runs of them."""
    folder = tmp_path_factory.mktemp("runs")
    queries = [f"q{i}" for i in range(30)]
    (folder / "qrels.txt").write_text("".join(f"{q} 0 {q}-d0 1\n" for q in queries))
    for name, shift in (("a", 3), ("b", 5), ("c", 7)):
        lines = []
        for number, query in enumerate(queries):
            place = number % shift
            order = [f"{query}-d{i}" for i in range(1, 10)]
            order.insert(place, f"{query}-d0")
            lines += [f"{query} Q0 {doc} {i} {-i} {name}\n" for i, doc in enumerate(order, 1)]
        (folder / f"{name}.run").write_text("".join(lines))
    files = [str(folder / f"{name}.run") for name in "abc"]
    words = ["--qrels", str(folder / "qrels.txt"), "--reference", "a", "--resamples", "200"]
    return ["evaluate", *words, "--runs", *files]


def own(name: str) -> tuple[set[str], set[str]]:
    """(distributions that an extra of pyproject.toml asks for itself, extras that it includes)."""
    asked = list(map(Requirement, PROJECT["optional-dependencies"][name]))
    included = {extra for r in asked if r.name == "raypipe" for extra in r.extras}
    return {plain(r.name) for r in asked if r.name != "raypipe"}, included


@pytest.mark.parametrize("extra", extras.EXTRAS)
def test_the_table_is_that_of_the_project(extra):
    asked, included = own(extra)
    here = set(map(plain, extras.EXTRAS[extra].values()))
    assert set(extras.INCLUDES.get(extra, ())) == included
    below = {plain(name) for i in included for name in extras.EXTRAS[i].values()}
    assert here <= asked and asked - here <= below


def test_the_base_is_that_of_the_project():
    asked = {plain(Requirement(line).name) for line in PROJECT["dependencies"]}
    assert asked == set(map(plain, extras.BASE.values()))
    assert own("all") == (set(), {"demo", "dense", "gguf", "onnx"})
    everything = set(extras.EXTRAS) | {"all", "test", "services", "bench"}
    assert everything == PROJECT["optional-dependencies"].keys()


def test_a_small_installation_has_no_torch_and_no_ray():
    assert set(HEAVY) <= refused()
    assert not {"numpy", "scipy", "pyarrow", "matplotlib", "typer", "ir_measures"} & refused()
    assert {"ray", "torch", "flask", "sklearn", "docker"} <= refused(["track"])
    assert "mlflow" not in refused(["track"])
    assert brought(("all",)) > brought(("train",)) > brought(("track",)) > brought()


def test_three_runs_are_compared_without_torch_and_ray(runs, tmp_path):
    page = tmp_path / "page.html"
    done = run(program([*runs, "--html", page]))
    assert (done.returncode, done.stderr) == (0, "")
    assert "against a" in done.stdout and "nDCG@10" in done.stdout
    assert "<svg" in page.read_text()


def test_without_a_page_no_plots_are_needed_and_without_ids_no_ir_datasets(runs):
    done = run(program(runs), also=["matplotlib", "ir_datasets", "obstore"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "verdict" in done.stdout


Said = Mapping[str, tuple[int, str, str]]


@pytest.fixture(scope="module")
def said(runs, beir_folder, tmp_path_factory) -> Said:
    """Commands of one small installation, one after the other: their code, stdout and stderr."""
    storage = tmp_path_factory.mktemp("storage")
    commands = {name: [name, *WORDS.get(name, ())] for name in NEEDED} | {
        "help": ["--help"],
        "page": [*runs, "--html", str(storage / "page.html")],
        "print": ["train", "pydoc", "--print-config"],
        "prune": ["artifacts", "prune", "--keep", "pydoc", "--storage", str(storage)],
        "data": ["data", f"beir:{beir_folder}", "--split", "test"],
        "doctor": ["doctor", "--storage", str(storage)],
    }
    done = run(ALL_AT_ONCE.format(commands=commands), also=["matplotlib"])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


ALL_AT_ONCE = """
import contextlib, io, json
from raypipe.program import program
found = {{}}
for name, words in {commands!r}.items():
    sys.argv, out, err = ["raypipe", *words], io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            program()
    except SystemExit as ended:
        found[name] = ended.code or 0, out.getvalue(), err.getvalue()
print(json.dumps(found))
"""


def test_the_help_needs_no_extra(said):
    code, out, _ = said["help"]
    assert code == 0 and all(name in out for name in COMMANDS)


@pytest.mark.parametrize("name", NEEDED)
def test_a_command_that_cannot_begin_says_what_to_install(said, name):
    assert said[name] == [2, "", f"error: raypipe {name} needs {NEEDED[name]}\n"]


def test_every_command_is_asked():
    assert NEEDED.keys() == extras.NEEDS.keys()
    assert {*NEEDED, "evaluate", "data", "artifacts", "doctor"} == set(COMMANDS)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("print", "raypipe train needs torch: pip install 'raypipe[train]'"),
        ("prune", "this needs torch, which is not installed: pip install 'raypipe[mine]'"),
        ("page", "this needs matplotlib, which is not installed: pip install raypipe"),
    ],
)
def test_recipes_and_pages_say_what_they_need(said, name, sentence):
    assert said[name] == [2, "", f"error: {sentence}\n"]


def test_files_are_looked_at(said):
    code, out, err = said["data"]
    assert (code, err) == (0, "") and "12 queries" in out


def test_doctor_tells_the_extras(said):
    code, out, err = said["doctor"]
    assert (code, err) == (0, "")
    found = {line[7:28].strip(): (line[:5].strip(), line[30:]) for line in out.splitlines()}
    assert found["extras"] == ("note", "none")
    more = "ray, torch, transformers and 12 more"
    assert found["extra search"] == ("note", f"lacks {more}; pip install 'raypipe[search]'")
    assert found["extra ui"][1].endswith("pip install 'raypipe[ui]' for raypipe ui")
    assert found["GPU"] == ("note", "torch, which would be asked, is not installed")


def test_what_only_some_recipes_need_is_said_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(extras, "is_there", lambda module: False)
    missing = ModuleNotFoundError("No module named 'optuna.trial'", name="optuna.trial")
    assert extras.sentence_on(missing) == (
        "this needs optuna, which is not installed: pip install 'raypipe[search]'"
    )
    assert extras.sentence_on(ModuleNotFoundError("x", name="somebody_elses")) is None
    assert extras.sentence_on(ModuleNotFoundError("x")) is None


def test_a_module_that_is_there_and_broken_is_not_called_missing():
    assert extras.sentence_on(ModuleNotFoundError("x", name="numpy.gone")) is None
