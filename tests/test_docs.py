"""README and docs/: every file is reached, every command is one, every recipe can be read."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tomllib
from pathlib import Path

import pytest
import typer
import yaml
from written_commands import commands, links, mentions, recipes

from raypipe.commands.command_line import recipe_and_overrides
from raypipe.program import COMMANDS, app_of
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "jobs" / "recipes"
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
WRITTEN = [README, *DOCS, ROOT / "CHANGELOG.md"]
READ_BY_OTHERS = {"plug-ins.md": "tests/plugins/test_examples.py", "reference.md": "generated"}
"""Documents whose recipes need packages of their own, or are none."""
OF_RECIPES = {"RAYPIPE_DATA", "RAYPIPE_LLM_URL"}
"""Variables of the environment that shipped recipes read, and raypipe's own code does not."""
FIRST_WORDS = (
    *("re-rank", "cross-encoder", "candidate", "first stage", "backbone", "stages", "negative"),
    "teacher",
)
"""Words that somebody who has searched, and never trained a model, does not know."""
NEED_NO_GLOSSARY = ("glossary.md", "reference.md", "security.md", "architecture.md", "install.md")
"""The glossary itself, what is generated, and pages without words of the field."""
TAKE_A_RECIPE = ("synthesize", "mine", "train", "sweep", "export")
SMALL = """\
name: small
data:
  train: {dataset: pydoc, split: train}
  validation: {dataset: pydoc, split: validation}
  test: {dataset: pydoc, split: test}
model: {backbone: some/encoder}
stages:
  contrastive: {loss: {type: infonce}, lr: 1.0e-4, queries_per_step: 8}
  distil: {loss: {type: hinge}, lr: 1.0e-4, queries_per_step: 8}
"""
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "optional-dependencies"
]


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def raypipe():
    """The whole program, without running it."""
    app = app_of(None)
    for name in COMMANDS:
        importlib.import_module(f"raypipe.program.{name}").add(app)
    return typer.main.get_command(app)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with the shipped recipes, also under the names that documents give one."""
    shutil.copytree(RECIPES, tmp_path, dirs_exist_ok=True)
    for name in ("RECIPE", "RECIPE.yaml", "recipe.yaml"):
        shutil.copy(RECIPES / "default.yaml", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_recipes(document: Path, folder: Path) -> list[Path]:
    """The document's recipes in the folder; a part of one changes a small one."""
    (folder / "small.yaml").write_text(SMALL, "utf-8")
    paths = []
    for name, text in recipes(document.read_text("utf-8")):
        is_part = not {"base", "stages"} & yaml.safe_load(text).keys()
        (folder / name).write_text(f"base: small.yaml\n{text}" if is_part else text, "utf-8")
        paths.append(folder / name)
    return paths


def contexts(command, words: list[str]) -> list:
    """Of the command and those below it; click refuses what the last one does not take."""
    context = command.make_context(None, list(words))
    if not hasattr(command, "resolve_command"):
        return [context]
    rest = [*getattr(context, "_protected_args", []), *context.args]
    _, below, rest = command.resolve_command(context, rest)
    return [context, *contexts(below, rest)]


def check_raypipe(raypipe, words: list[str]) -> None:
    _, *below = contexts(raypipe, words)
    if words[0] in TAKE_A_RECIPE:
        given = below[0].params["recipe" if words[0] == "export" else "arguments"]
        load(Experiment, *recipe_and_overrides(list(given or []), "default.yaml"))


def check_ray(raypipe, words: list[str]) -> None:
    from ray.scripts.scripts import cli

    contexts(cli, words)
    if "--" in words:
        check(raypipe, words[words.index("--") + 1 :])


def check_python(raypipe, words: list[str]) -> None:
    first, *rest = words
    if first == "-m":
        assert importlib.util.find_spec(rest[0]) is not None, rest[0]
        if rest[0] == "raypipe" and rest[1:]:
            check_raypipe(raypipe, rest[1:])
    elif first != "-c":
        script = ROOT / first
        text = script.read_text("utf-8")
        if script.stem in COMMANDS:
            check_raypipe(raypipe, [script.stem, *rest])
        else:
            assert all(word in text for word in rest), rest


def check(raypipe, words: list[str]) -> None:
    """Fail where a program would refuse the words; nothing is run.

    Raises:
        Exception: whatever the program's own parser raises, or an AssertionError.
    """
    program, *rest = words
    if program == "raypipe":
        check_raypipe(raypipe, rest)
    elif program in ("python", "python3") and rest[:2] != ["-m", "venv"]:
        check_python(raypipe, rest)
    elif program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert rest[0] in targets, rest
    elif program == "pip":
        for extra in re.findall(r"\[([a-z,]+)\]", " ".join(rest)):
            assert set(extra.split(",")) <= set(EXTRAS), rest
    elif program == "ray":
        check_ray(raypipe, rest)


def refused(raypipe, words: list[str], *, mention: bool) -> str:
    """Why a command would be refused, empty if it would not; a mention may lack arguments."""
    try:
        check(raypipe, words)
    except BaseException as error:  # click exits, some parsers do
        if mention and type(error).__name__ == "MissingParameter":
            return ""
        return f"{' '.join(words)}: {type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize("document", WRITTEN, ids=named)
def test_commands_are_commands(document, raypipe, folder):
    text = document.read_text("utf-8")
    if document.name not in READ_BY_OTHERS:
        write_recipes(document, folder)
    # a recipe that names a package of the reader's cannot be read here
    known = [words for words in commands(text) if "my_package" not in " ".join(words)]
    why = [refused(raypipe, words, mention=False) for words in known]
    why += [refused(raypipe, words, mention=True) for words in mentions(text)]
    assert [reason for reason in why if reason] == []


@pytest.mark.parametrize(
    "document", [d for d in WRITTEN if d.name not in READ_BY_OTHERS], ids=named
)
def test_recipes_can_be_read(document, folder):
    for path in write_recipes(document, folder):
        assert load(Experiment, path).stage_names, path.read_text("utf-8")


@pytest.mark.parametrize(
    "command",
    [
        "raypipe report --no-such-option",
        "raypipe train default.yaml stages.contrastive.lrr=1",
        "raypipe evaluates --qrels x",
        "python jobs/sweeep.py",
        "python -m raypipe.trackin --send",
        "make tests",
        "pip install -e '.[demos]'",
        "ray start --heads",
    ],
)
def test_a_wrong_command_is_found(command, raypipe, folder):
    (words,) = commands(f"text\n\n    {command}\n")
    assert refused(raypipe, words, mention=False)


def test_every_document_is_reached_from_the_readme():
    reached, waiting = set(), [README]
    while waiting:
        document = waiting.pop()
        if document not in reached:
            reached.add(document)
            targets = [target.partition("#")[0] for target in links(document)]
            linked = [(document.parent / target).resolve() for target in targets if target]
            assert [path for path in linked if not path.exists()] == [], named(document)
            waiting += [path for path in linked if path.suffix == ".md"]
    others = [ROOT / name for name in ("CHANGELOG.md", "jobs/labbook.md")]
    assert {*DOCS, *others} <= reached
    assert {"CITATION.cff", "LICENSE"} <= set(links(README))


@pytest.mark.parametrize("word", FIRST_WORDS)
def test_words_of_the_readme_are_explained_where_they_first_stand(word):
    """There they are emphasised; the glossary has them, too."""
    first = re.search(rf"\*?\b{word}", " ".join(README.read_text("utf-8").split()), re.IGNORECASE)
    assert first is not None and first.group().startswith("*"), word
    assert re.search(
        rf"^\| {word.removesuffix('s')}",
        (ROOT / "docs/glossary.md").read_text("utf-8"),
        re.M | re.I,
    )


def test_the_readme_is_a_screen_and_a_half():
    """Of 60 to 70 lines each."""
    assert len(README.read_text("utf-8").splitlines()) <= 110


def test_the_glossary_is_one_click_from_every_page():
    """A page is where a search leads; whoever stands there for the first time finds the words."""
    pages = [page for page in DOCS if page.name not in NEED_NO_GLOSSARY]
    assert [named(page) for page in pages if "glossary.md" not in links(page)] == []


@pytest.mark.parametrize("document", WRITTEN, ids=named)
def test_named_files_and_variables_are_there(document):
    text = document.read_text("utf-8")
    paths = re.findall(r"(?<![\w/])(?:raypipe|jobs|tests|docs)/[\w/.-]*\w", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    source = "".join(path.read_text("utf-8") for path in (ROOT / "raypipe").rglob("*.py"))
    variables = set(re.findall(r"\bRAYPIPE_[A-Z_]+\b", text)) - OF_RECIPES
    assert [name for name in variables if name not in source] == []


def test_every_move_of_digests_is_in_the_changelog():
    lines = (ROOT / "tests/recipe/golden/digests.txt").read_text("utf-8").splitlines()
    reasons = {why for line in lines for why in line.partition(" # ")[2].split("; ") if why}
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert reasons and {why for why in reasons if f"| {why} |" not in changes} == set()


def test_the_citation_is_of_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
