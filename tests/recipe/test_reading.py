"""Recipes as they are written: what is read, what an override changes, what an error says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from raypipe.config import Config, ConfigError, flatten, to_yaml
from raypipe.groups.samplers import RandomWindow, TopK
from raypipe.losses.listwise import InfoNCE
from raypipe.losses.preference import MarginMSE
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load, override, parse_yaml, validate

RECIPES = sorted((Path(__file__).parents[2] / "jobs" / "recipes").rglob("*.yaml"))
PYDOC = next(path for path in RECIPES if path.name == "pydoc.yaml")


def read(*overrides: str) -> Experiment:
    return load(Experiment, PYDOC, overrides)


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        read(*overrides)
    return str(error.value)


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def from_text(folder: Path, old: str, new: str) -> str:
    """The error of the default recipe with one place of its text changed."""
    text = PYDOC.read_text()
    assert old in text
    path = written(folder / "changed.yaml", text.replace(old, new, 1))
    with pytest.raises(ConfigError) as error:
        load(Experiment, path)
    return str(error.value)


# --- every shipped recipe -------------------------------------------------------------------------


def test_there_are_recipes():
    assert {"default.yaml", "pydoc.yaml", "scifact.yaml"} <= {path.name for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_opens_with_its_command(path):
    recipe = load(Experiment, path)
    assert set(recipe.stage_names) <= set(recipe.stages)
    first = path.read_text().splitlines()[0].split()
    assert first[:2] == ["#", "python"]
    assert (PYDOC.parents[2] / first[2]).is_file()  # the job is there
    named = first[3] if len(first) > 3 else "jobs/recipes/default.yaml"  # which jobs default to
    assert PYDOC.parents[2] / named == path


# --- wrong keys and values ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "suggestion"),
    [
        ("nmae=x", "nmae", "name"),
        ("candidates.dept=5", "candidates.dept", "depth"),
        ("data.train.datset=pydoc", "data.train.datset", "dataset"),
        ("stages.distil.wombats=1", "stages.distil.wombats", None),
        ("stages.distil.warmpu=0.1", "stages.distil.warmpu", "warmup"),
        ("stages.contrastive.loss.temprature=2", "stages.contrastive.loss.temprature", None),
        ("stages.contrastive.loss.temperatur=2", "stages.contrastive.loss.temperatur", None),
        ("groups.negatives.hgih=3", "groups.negatives.hgih", "high"),
        ("resources.worker=2", "resources.worker", "workers"),
    ],
)
def test_an_unknown_key_is_named_by_its_dotted_path(text, path, suggestion):
    message = refused(text)
    assert f"{path}: unknown key {path.rsplit('.', 1)[-1]!r}" in message
    if "temp" in path:
        suggestion = "temperature"
    expected = f"did you mean {suggestion!r}" if suggestion else "; valid: "
    assert expected in message


def test_no_near_key_lists_those_of_the_chosen_class_only():
    message = refused("stages.contrastive.loss.zzz=2")
    assert message.endswith(
        "stages.contrastive.loss.zzz: unknown key 'zzz'; valid: over, own_share, positive, "
        "temperature, type"
    )
    assert "scale" not in message  # of another loss in the union


def test_an_unknown_key_inside_the_file(tmp_path):
    message = from_text(tmp_path, "loss: {type: margin_mse}", "loss: {type: margin_mse, scal: 2}")
    assert message.startswith(f"{tmp_path}/changed.yaml: ")
    assert "stages.distil.loss.scal: unknown key 'scal'; did you mean 'scale'?" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("precision=bf61", "precision: unknown value 'bf61'; did you mean 'bf16'?"),
        (
            "stages.distil.loss.type=margin_mes",
            "stages.distil.loss.type: unknown value 'margin_mes'; did you mean 'margin_mse'?",
        ),
        (
            "groups.negatives.type=topk",
            "groups.negatives.type: unknown value 'topk'; did you mean 'top_k'?",
        ),
        ("groups.positives=injects", "groups.positives: unknown value 'injects'; did you mean"),
        ("teacher.type=llm", "teacher.type: unknown value 'llm'; valid: bi_encoder, cross_"),
        ("sweep.mode=compar", "sweep.mode: unknown value 'compar'"),
        ("stages.distil.lr=2", "stages.distil.lr: input should be less than 1, found 2"),
        ("stages.distil.lr=fast", "stages.distil.lr: input should be a valid number"),
        ("candidates.depth=0", "candidates.depth: input should be greater than or equal to 1"),
        ("data.test.limit=some", "data.test.limit: input should be a valid integer"),
        ("evaluation.measures=[nDCG@10, 7]", "evaluation.measures.1: input should be a valid str"),
        ("evaluation.measures=[]", "evaluation.measures: "),
    ],
)
def test_a_wrong_value_is_named_by_its_dotted_path(text, expected):
    assert expected in refused(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stages.distil.steps=true", "stages.distil.steps: expected a number, found true"),
        ("stages.distil.betas=[0.9, no]", "stages.distil.betas.1: expected a number, found false"),
        ("candidates.depth='1_0'", "candidates.depth: expected a number in digits, found text w"),
        ("stages.distil.steps=1e12", "stages.distil.steps: expected at most 4,294,967,295, found"),
        ("seed=1e23", "seed: expected at most 4,294,967,295, found 1e+23"),
        ("seed=-1", "seed: input should be greater than or equal to 0, found -1"),
        ("stages.distil.epochs=1e30", "stages.distil.epochs: input should be less than or equal"),
        ("stages.distil.lr=.nan", "stages.distil.lr: input should be a finite number, found nan"),
        ("stages.distil.clip=.inf", "stages.distil.clip: input should be a finite number, found"),
        ("sweep.space={seed: [1, .inf]}", "sweep.space.seed.1: expected a finite number, found"),
        ("stages.distil.lr=1e-٣", "stages.distil.lr: input should be a valid number"),
        (f"name=[{'x' * 900}]", "name: input should be a valid string, found ['xxx"),
    ],
)
def test_what_is_no_number_is_named_by_its_dotted_path(text, expected):
    message = refused(text)
    assert expected in message
    assert len(message) < 500  # however long the value is


def test_every_wrong_field_is_in_one_error():
    message = refused("candidates.depth=0", "precision=fp8", "stages.distil.lr=7")
    for path in ("candidates.depth", "precision", "stages.distil.lr"):
        assert f"{path}: " in message
    assert len(message.splitlines()) == 3


class Leaf(Config):
    rate: float = Field(0.5, gt=0)


class Tree(Config):
    leaves: tuple[Leaf, ...] = ()
    samplers: tuple[Annotated[TopK | RandomWindow, Field(discriminator="type")], ...] = ()


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"leaves": [{}, {"rat": 1}]}, "leaves.1.rat: unknown key 'rat'; did you mean 'rate'?"),
        ({"leaves": [{"rate": 0}]}, "leaves.0.rate: input should be greater than 0, found 0"),
        (
            {"samplers": [{"type": "top_k"}, {"type": "random_window", "lwo": 2}]},
            "samplers.1.lwo: unknown key 'lwo'; did you mean 'low'?",
        ),
        (
            {"samplers": [{"type": "top"}]},
            "samplers.0.type: unknown value 'top'; did you mean 'top_k'?",
        ),
        ({"samplers": [{"count": 2}]}, "samplers.0: expected a mapping with a `type`"),
    ],
)
def test_lists_are_walked_by_position(tree, expected):
    with pytest.raises(ConfigError) as error:
        validate(Tree, tree, "here")
    assert str(error.value) == f"here: {expected}"


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        ("-2e+3", -2000.0),
        ("+.5e1", 5.0),
        ("3.e2", 300.0),
        ("2.0e-5", 2e-5),
        ("[1e-5, 2e-5]", [1e-5, 2e-5]),
        ("{a: 1e-5}", {"a": 1e-5}),
        ("'1e-5'", "1e-5"),
        ("1e-5x", "1e-5x"),
        ("e5", "e5"),
        ("7", 7),
    ],
)
def test_exponents_without_a_point_are_numbers(text, value):
    found = parse_yaml(text)
    assert found == value and type(found) is type(value)


def test_exponents_in_recipe_override_and_search_space(tmp_path):
    path = written(tmp_path / "r.yaml", PYDOC.read_text().replace("lr: 1.0e-4", "lr: 1e-5"))
    keys = ["stages.distil.lr=3e-6", "sweep.space.stages.distil.lr=[1e-5, 2E-5]"]
    recipe = load(Experiment, path, keys)
    assert recipe.stages["contrastive"].lr == 1e-5
    assert recipe.stages["distil"].lr == 3e-6
    assert recipe.sweep.space["stages.distil.lr"] == [1e-5, 2e-5]
    assert [type(v) for v in recipe.sweep.space["stages.distil.lr"]] == [float, float]


# --- overrides ------------------------------------------------------------------------------------


def test_an_override_changes_its_field_only():
    before, after = flatten(read()), flatten(read("stages.distil.lr=3e-5"))
    assert {k for k in after if after[k] != before.get(k)} == {"stages.distil.lr"}
    assert after.keys() == before.keys()


def test_the_last_override_wins():
    assert read("seed=4", "seed=5").seed == 5


def test_a_changed_type_drops_the_fields_of_the_old_choice():
    window = "groups.negatives={type: random_window, count: 4, high: 9}"
    recipe = read(window, "groups.negatives.type=top_k")
    assert recipe.groups.negatives == TopK()  # not the old count, and no window
    again = read(window, "groups.negatives.type=top_k", "groups.negatives.count=5")
    assert again.groups.negatives == TopK(count=5)


def test_the_same_type_keeps_the_other_fields():
    window = "groups.negatives={type: random_window, count: 4, high: 9}"
    recipe = read(window, "groups.negatives.type=random_window", "groups.negatives.low=2")
    assert recipe.groups.negatives == RandomWindow(count=4, low=2, high=9)


def test_a_loss_is_exchanged_by_its_type():
    recipe = read("stages.distil.loss.scale=2", "stages.distil.loss.type=infonce")
    assert recipe.stages["distil"].loss == InfoNCE()
    assert read("stages.distil.loss.scale=2").stages["distil"].loss == MarginMSE(scale=2)


@pytest.mark.parametrize(
    "text", ["stages.distll.lr=1", "stages.distll=null", "stages.distll.loss.type=infonce"]
)
def test_a_name_that_is_not_there_cannot_be_overridden(text):
    key = text.split("=")[0]
    expected = f"{key}: there is no 'distll' here; did you mean 'distil'?"
    assert refused(text) == expected


def test_a_misspelt_name_with_a_mapping_does_not_add_a_stage():
    expected = "stages.distll.loss: there is no 'distll' here; did you mean 'distil'?"
    assert refused("stages.distll.loss={type: infonce}") == expected


def test_a_whole_stage_can_be_added():
    recipe = read("stages.third={loss: {type: infonce}, lr: 1e-5}")
    assert recipe.stage_names == ("contrastive", "distil", "third")
    assert recipe.stages["third"].lr == 1e-5


def test_keys_of_a_search_space_are_free_and_may_hold_dots():
    space = read("sweep.space.stages.distil.loss.scale=[1, 2]").sweep.space
    assert list(space) == ["model", "order", "stages.distil.loss.scale"]
    assert read("sweep.space={}").sweep.space == {}


def test_override_leaves_its_input_alone():
    tree = {"stages": {"a": {"loss": {"type": "infonce", "temperature": 2}}}}
    changed = override(Experiment, tree, "stages.a.loss.type", "ranknet")
    assert changed == {"stages": {"a": {"loss": {"type": "ranknet"}}}}
    assert tree == {"stages": {"a": {"loss": {"type": "infonce", "temperature": 2}}}}


def test_values_with_an_equals_sign_and_yaml_in_them():
    recipe = read(
        "name=a=b", "evaluation.measures=[AP, nDCG@10]", "teacher=null", "order=contrastive"
    )
    assert recipe.name == "a=b"
    assert recipe.evaluation.measures == ("AP", "nDCG@10")
    assert recipe.teacher is None and recipe.order == ("contrastive",)


@pytest.mark.parametrize("text", ["seed", "=3", " =3"])
def test_an_override_without_key_or_value(text):
    expected = f"override {text!r}: expected key=value, such as stages.distil.lr=2e-5"
    assert refused(text) == expected


def test_an_override_that_is_not_yaml():
    assert refused("seed=[1") == (
        "override 'seed=[1': the value is not valid YAML; put it in quotes"
    )


# --- files ----------------------------------------------------------------------------------------


def test_a_missing_recipe_suggests_the_nearest_file():
    with pytest.raises(
        ConfigError, match=r"no recipe at .*defualt\.yaml; did you mean 'default\.y"
    ):
        load(Experiment, PYDOC.with_name("defualt.yaml"))


def test_a_missing_folder():
    with pytest.raises(ConfigError, match=r"no recipe at /nowhere/x\.yaml; check the path"):
        load(Experiment, "/nowhere/x.yaml")


def test_a_file_that_is_not_yaml(tmp_path):
    path = written(tmp_path / "x.yaml", "a: [1\nb: 2")
    with pytest.raises(ConfigError, match=r"(?s)x\.yaml is not valid YAML: .*line 2"):
        load(Experiment, path)


def test_a_stage_given_twice_is_named_in_a_base_too(tmp_path):
    stage = "  distil: {loss: {type: ranknet}}\n"
    twice = PYDOC.read_text().replace("stages:\n", f"stages:\n{stage}")
    written(tmp_path / "base.yaml", twice)
    top = written(tmp_path / "top.yaml", "base: base.yaml\n")
    first, second = (
        n for n, line in enumerate(twice.splitlines(), 1) if line.startswith("  distil:")
    )
    expected = rf"base\.yaml: the key 'distil' is given twice, in lines {first} and {second}"
    with pytest.raises(ConfigError, match=expected):
        load(Experiment, top)


def test_an_override_with_a_key_twice():
    message = refused("stages.third={loss: {type: infonce}, lr: 1e-5, lr: 1e-6}")
    assert message.startswith("override 'stages.third={")
    assert "the key 'lr' is given twice, in line 1, columns 25 and 35" in message


def test_a_file_with_a_python_object_is_not_run(tmp_path):
    path = written(tmp_path / "x.yaml", "name: !!python/object/apply:os.getcwd []")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load(Experiment, path)


def test_a_file_without_a_mapping(tmp_path):
    path = written(tmp_path / "x.yaml", "- a\n- b")
    with pytest.raises(ConfigError, match=r"x\.yaml: expected a mapping of fields, found list"):
        load(Experiment, path)


def test_an_empty_file_names_what_is_required(tmp_path):
    with pytest.raises(ConfigError) as error:
        load(Experiment, written(tmp_path / "x.yaml", ""))
    lines = str(error.value).removeprefix(f"{tmp_path}/x.yaml: ").splitlines()
    assert lines == [f"{name}: field required" for name in ("name", "data", "model", "stages")]


# --- variables of the environment -----------------------------------------------------------------


def test_variables_of_the_environment(monkeypatch):
    monkeypatch.setenv("RAYPIPE_TEST_DATA", "/data")
    monkeypatch.delenv("RAYPIPE_TEST_NONE", raising=False)
    recipe = read("data.train.dataset=beir:${RAYPIPE_TEST_DATA}/mine", "data.train.split=train")
    assert recipe.data.train.dataset == "beir:/data/mine"
    recipe = read("storage=${RAYPIPE_TEST_NONE:-/else}/x", "name=a$b")
    assert recipe.storage == "/else/x" and recipe.name == "a$b"
    home = read("storage=${RAYPIPE_TEST_NONE:-~/x}").storage
    assert home == str(Path("~/x").expanduser())
    message = refused("data.train.dataset=beir:${RAYPIPE_TEST_NONE}/mine")
    assert "data.train.dataset: the environment variable RAYPIPE_TEST_NONE is not set" in message


# --- there and back -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_what_is_printed_reads_back_equal(path, tmp_path):
    recipe = load(Experiment, path, ["seed=9", "evaluation.validation_depth=7"])
    printed = written(tmp_path / "printed.yaml", to_yaml(recipe))
    assert load(Experiment, printed) == recipe
    assert "storage: null" in printed.read_text()  # defaults are written out


# --- bases ----------------------------------------------------------------------------------------


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_a_base_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "base.yaml").write_text(PYDOC.read_text())
    for number, name in enumerate(["${SOMEWHERE}/base.yaml", "~/away/base.yaml"]):
        monkeypatch.setenv("SOMEWHERE", str(tmp_path / "away"))
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "top.yaml").write_text(f"base: {name}\nseed: {number}\n")
        assert load(Experiment, tmp_path / "top.yaml").seed == number
    monkeypatch.delenv("SOMEWHERE")
    (tmp_path / "top.yaml").write_text("base: ${SOMEWHERE}/base.yaml")
    with pytest.raises(ConfigError, match="base: the environment variable SOMEWHERE is not set"):
        load(Experiment, tmp_path / "top.yaml")


def test_a_recipe_changes_its_base(tmp_path):
    default = PYDOC
    write(
        tmp_path,
        middle=f"base: {default}\nseed: 7\nstages: {{distil: {{lr: 1e-5}}}}\n",
        top="base: middle.yaml\nname: top\nstages: {distil: {loss: {type: ranknet}}}\n"
        "sweep: {space: {seed: [1, 2]}}\nreference: null\n",
    )
    one, base = load(Experiment, tmp_path / "top.yaml"), load(Experiment, default)
    assert (one.name, one.seed, one.stages["distil"].lr) == ("top", 7, 1e-5)
    assert one.stages["distil"].loss.type == "ranknet" and base.stages["distil"].lr != 1e-5
    assert one.stages["contrastive"] == base.stages["contrastive"]
    assert one.stages["distil"].limit == base.stages["distil"].limit
    assert list(one.sweep.space) == ["seed"]  # the whole space is replaced


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a": "base: b.yaml"}, r"no recipe at .*b\.yaml \(the base of .*a\.yaml\)"),
        ({"a": "base: b.yaml", "b": "base: a.yaml"}, r"a\.yaml: is its own base"),
        ({"a": "base: b.yaml", "b": "[1]"}, r"b\.yaml: expected a mapping of fields, found list"),
    ],
)
def test_a_wrong_base_is_named(tmp_path, files, expected):
    write(tmp_path, **files)
    with pytest.raises(ConfigError, match=expected):
        load(Experiment, tmp_path / "a.yaml")


# --- what people bring from elsewhere -------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stages.distil.learning_rate=1e-4", "here it is called 'lr'"),
        ("learning_rate=1e-4", "here it is stages.NAME.lr"),
        ("stages.distil.batch_size=8", "here it is called 'queries_per_step' (queries of one"),
        ("stages.distil.num_train_epochs=3", "here it is called 'epochs'"),
        ("stages.distil.warmup_ratio=0.1", "here it is called 'warmup' (a share of the steps)"),
        ("stages.distil.max-grad-norm=1", "here it is called 'clip'"),
        ("model.model_name_or_path=x", "here it is called 'backbone'"),
        ("truncation.maxSeqLength=128", "here it is called 'max_length'"),
        ("groups.negatives.num_negatives=4", "here it is called 'count'"),
        ("fp16=true", "here it is called 'precision'"),
        ("stages.distil.fp16=true", "here it is precision"),
        ("gradient_accumulation_steps=4", "here it is resources.micro_batch_tokens (counted in"),
    ],
)
def test_a_name_of_another_trainer_is_answered_with_the_one_here(text, expected):
    key = text.partition("=")[0]
    last = key.rpartition(".")[2]
    assert refused(text).startswith(f"override {key}: unknown key {last!r}; {expected}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stages.distil.loss.type=InfoNCE", "unknown value 'InfoNCE'; did you mean 'infonce'?"),
        (
            "stages.distil.loss.type=MarginMSE",
            "unknown value 'MarginMSE'; did you mean 'margin_mse'",
        ),
        ("stages.distil.loss.type=BCE", "unknown value 'BCE'; did you mean 'bce'?"),
        ("groups.negatives.type=Top-K", "unknown value 'Top-K'; did you mean 'top_k'?"),
        ("candidates.type=BM25", "unknown value 'BM25'; did you mean 'bm25'?"),
        ("precision=BF16", "precision: unknown value 'BF16'; did you mean 'bf16'?"),
        ("stages.distil.LR=1e-4", "unknown key 'LR'; did you mean 'lr'?"),
        ("stages.DISTIL.lr=1e-4", "there is no 'DISTIL' here; did you mean 'distil'?"),
    ],
)
def test_the_case_of_a_name_is_no_riddle(text, expected):
    assert expected in refused(text)


# --- whose fault it is ----------------------------------------------------------------------------


def test_an_error_of_an_override_is_not_blamed_on_the_file(tmp_path):
    key = "candidates.depth"
    assert refused(f"{key}=0").startswith(f"override {key}: input should be greater than")
    path = written(tmp_path / "x.yaml", f"{PYDOC.read_text()}\nsead: 3\n")
    with pytest.raises(ConfigError) as error:
        load(Experiment, path, [f"{key}=0"])
    first, second = str(error.value).splitlines()
    assert first.startswith(f"{path}: sead: unknown key 'sead'; did you mean 'seed'?")
    assert second.startswith(f"override {key}: input should")


def test_an_error_elsewhere_names_the_overrides_that_it_comes_from():
    message = refused("candidates.depth=3", "seed=2")
    assert message.startswith("override candidates.depth, seed: evaluation.depth: ")
    assert "is more than candidates.depth=3" in message


# --- settings that stand for each other -----------------------------------------------------------


@pytest.mark.parametrize(
    ("used", "unused"),
    [
        ("steps=10", "epochs=3"),
        ("warmup_steps=5", "warmup=0.2"),
        ("validate_every=5", "validations=4"),
    ],
)
def test_what_would_not_be_used_is_refused(used, unused, tmp_path):
    """Silently, the one would win that nobody thinks of."""
    (name, value), other = unused.split("="), used.split("=")[0]
    stage = "stages.distil"
    expected = f"{stage}.{name}: {value} would not be used, because {used} is set; leave one of t"
    assert expected in refused(f"{stage}.{used}", f"{stage}.{unused}")
    both = f"{{{used}, {unused}}}".replace("=", ": ")
    assert expected in refused(f"stages={{distil: {{loss: {{type: ranknet}}, {both[1:-1]}}}}}")
    # a later layer's choice replaces that of an earlier one, in either direction
    for first, second in ((used, unused), (unused, used)):
        base = f"base: {PYDOC}\nstages: {{distil: {{{first.replace('=', ': ')}}}}}\n"
        path = written(tmp_path / "base.yaml", base)
        by_override = load(Experiment, path, [f"{stage}.{second}"]).stages["distil"]
        layer = f"base: base.yaml\nstages: {{distil: {{{second.replace('=', ': ')}}}}}\n"
        by_layer = load(Experiment, written(tmp_path / "top.yaml", layer)).stages["distil"]
        assert by_override == by_layer
        assert getattr(by_override, other) == (
            None if second == unused else int(used.split("=")[1])
        )
        assert getattr(by_override, name) == float(value) or second == used


def test_what_is_printed_with_steps_reads_back(tmp_path):
    recipe = read("stages.distil.steps=7", "stages.distil.warmup_steps=2")
    printed = written(tmp_path / "printed.yaml", to_yaml(recipe))
    assert "epochs: 1.0" in printed.read_text() and load(Experiment, printed) == recipe


# --- printed values in a file of their own --------------------------------------------------------


def test_published_values_stand_in_a_file_beside_the_recipe(tmp_path):
    tables = [{"dataset": "d", "first_stage": "BM25", "source": "s", "values": {"RR@10": {"a": 1}}}]
    (tmp_path / "printed.json").write_text(json.dumps(tables))
    recipe = tmp_path / "changed.yaml"
    recipe.write_text(f"base: {PYDOC}\npublished: printed.json\n")
    (table,) = load(Experiment, recipe).published
    assert table.values == {"RR@10": {"a": 1.0}}


@pytest.mark.parametrize(
    ("content", "words"), [(None, "no file at .*printed.json"), ("{}", "expected a list of tables")]
)
def test_published_values_that_are_not_there_are_refused(tmp_path, content, words):
    if content is not None:
        (tmp_path / "printed.json").write_text(content)
    recipe = tmp_path / "changed.yaml"
    recipe.write_text(f"base: {PYDOC}\npublished: printed.json\n")
    with pytest.raises(ConfigError, match=rf"changed\.yaml: published: {words}"):
        load(Experiment, recipe)


def test_no_shipped_recipe_holds_printed_values():
    for path in PYDOC.parent.rglob("*.yaml"):
        assert "published:\n" not in path.read_text("utf-8"), path
    assert len(load(Experiment, PYDOC.parent / "multistage.yaml").published) == 8
