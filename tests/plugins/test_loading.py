"""What a recipe may name, and what every other name is answered with, before and after import."""

from __future__ import annotations

import pickle
import sys

import pytest
from own_packages import SQUARED, forget, work_in, write

from raypipe.commands.explain import explain
from raypipe.config import ConfigError
from raypipe.losses.listwise import InfoNCE
from raypipe.plugins.packages import ALLOW
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand

TYPE = "stages.contrastive.loss.type"
OWN = f"{TYPE}=my_package.own:Squared"


@pytest.fixture
def package(tmp_path, monkeypatch):
    write(tmp_path, SQUARED)
    work_in(tmp_path, monkeypatch)
    return tmp_path


def refused(recipe, *changes: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(Experiment, recipe, changes)
    return str(caught.value)


def test_nothing_is_imported_that_nobody_allowed(recipe, package, monkeypatch):
    write(package, {"my_package/own.py": "raise AssertionError('imported')"})
    for allowed, remedy in (("", "my_package"), ("other", "other,my_package")):
        monkeypatch.setenv(ALLOW, allowed)
        text = refused(recipe, OWN)
        assert text.startswith(f"override {TYPE}: expected a package that {ALLOW} names, found my_")
        assert text.endswith(f"set {ALLOW}={remedy}")
    assert "my_package" not in sys.modules


def test_permission_is_asked_for_again_of_a_loaded_class(recipe, package, monkeypatch):
    load(Experiment, recipe, [OWN])
    monkeypatch.delenv(ALLOW)
    assert "expected a package that" in refused(recipe, OWN)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("my package:Loss", "expected a name such as my_package.module:Class"),
        ("'my_package.own:'", "expected a name such as"),
        (":Squared", "expected a name such as"),
        ("my_package.own:Squared:x", "expected a name such as"),
        ("my_package..own:Squared", "expected a name such as"),
        ("raypipe.losses.listwise:InfoNCE", "found raypipe, whose choices have short names"),
        ("json:JSONDecoder", "a module of Python itself; give your package another name"),
        ("my_package.own:Squarde", "has no class 'Squarde'; did you mean 'Squared'?"),
        ("my_package.wno:Squared", "there is no module my_package.wno in "),
        ("absent.own:Squared", "there is no package absent in "),
        ("my_package.own:Field", "a class that extends one of raypipe's, found <function Field"),
        ("my_package.own:helpers", "a class that extends one of raypipe's, found <module"),
        ("my_package.own:Loss", "expected a loss with per_query, found none; write it"),
        ("my_package.kinds:Half", "expected a loss with per_query, found none; write it"),
        ("my_package.kinds:Plain", "found a class of object"),
        ("my_package.kinds:Options", "subclass of raypipe.losses.base:Loss, found a class of Conf"),
        ("my_package.raises:Squared", "raises cannot be imported: ZeroDivisionError: division by"),
        ("my_package.raises:Squared", "raises.py, line 2)"),
        ("my_package.exits:Squared", "exits cannot be imported: SystemExit: 3"),
        ("my_package.typo:Squared", "typo cannot be imported: SyntaxError: "),
        (
            "my_package.lacks:Squared",
            "cannot be imported: ModuleNotFoundError: No module named 'no",
        ),
        (
            "my_package.takes:Taken",
            "Taken has a field plugin_origin, which is raypipe's; rename it",
        ),
    ],
)
def test_what_is_no_loss_is_refused_with_its_key(recipe, package, monkeypatch, name, words):
    write(
        package,
        {
            "my_package/raises.py": "x = 1\n1 / 0\n",
            "my_package/exits.py": "import sys\nsys.exit(3)\n",
            "my_package/typo.py": "def\n",
            "my_package/lacks.py": "import nowhere_at_all\n",
            "my_package/kinds.py": """
                from raypipe.config import Config
                from raypipe.losses.base import Loss
                class Half(Loss):
                    pass
                class Plain:
                    pass
                class Options(Config):
                    pass
            """,
            "my_package/takes.py": """
                from raypipe.losses.base import Loss
                class Taken(Loss):
                    plugin_origin: int = 1
                    def per_query(self, scores_QD, targets_QD, mask_QD, known):
                        return scores_QD.sum(1)
            """,
        },
    )
    monkeypatch.setenv(ALLOW, "my_package, absent,json,raypipe")
    text = refused(recipe, f"{TYPE}={name}")
    assert text.startswith(f"override {TYPE}: ") and words in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("scale=-2", "stages.contrastive.loss.scale: input should be greater than 0, found -2"),
        ("scal=2", "stages.contrastive.loss.scal: unknown key 'scal'; did you mean 'scale'?"),
        ("scale=many", "stages.contrastive.loss.scale: input should be a valid number"),
        ("scale='1_0'", "found text with an underscore"),
    ],
)
def test_errors_within_a_plug_in_have_the_dotted_key(recipe, package, change, words):
    assert words in refused(recipe, OWN, f"stages.contrastive.loss.{change}")


def test_a_changed_type_drops_the_fields_of_the_other(recipe, package):
    changes = ["stages.contrastive.loss.temperature=0.5", OWN, "stages.contrastive.loss.scale=3"]
    loss = load(Experiment, recipe, changes).stages["contrastive"].loss
    assert (loss.type, loss.scale) == ("my_package.own:Squared", 3.0)


def test_a_sweep_over_types_and_fields(recipe, package):
    space = (
        "sweep.space={stages.contrastive.loss: [{type: infonce}, {type: my_package.own:Squared, "
        "scale: 3}], stages.distil.loss.type: [my_package.own:Squared, kl]}"
    )
    trials = expand(load(Experiment, recipe, [space, "reference=null"]))
    names = [
        tuple(stage.loss.type for stage in trial.experiment.stages.values()) for trial in trials
    ]
    own = "my_package.own:Squared"
    assert names == [("infonce", own), ("infonce", "kl"), (own, own), (own, "kl")]
    wrong = space.replace("scale: 3", "scale: 0")
    with pytest.raises(ConfigError, match=r"stages\.contrastive\.loss\.scale: input should be"):
        expand(load(Experiment, recipe, [wrong, "reference=null"]))


def test_a_subclass_of_a_choice_has_its_fields_and_its_own_name(recipe, package):
    write(
        package,
        {
            "my_package/own.py": """
                from raypipe.losses.listwise import InfoNCE
                class Squared(InfoNCE):
                    version = 7
            """
        },
    )
    loss = load(Experiment, recipe, [OWN]).stages["contrastive"].loss
    assert isinstance(loss, InfoNCE) and loss.temperature == 1.0
    assert (loss.type, loss.semantic()["version"]) == ("my_package.own:Squared", 7)


def test_code_version_and_fields_are_in_the_digest(recipe, package):
    def digest(*changes: str) -> str:
        forget()
        return load(Experiment, recipe, [OWN, *changes]).trained().chain()[0].digest

    first = digest()
    assert digest() == first
    assert digest("stages.contrastive.loss.scale=2") != first
    own, helpers = SQUARED["my_package/own.py"], SQUARED["my_package/helpers.py"]
    write(package, {"my_package/unrelated.py": "x = 2\n"})
    assert digest() == first
    write(package, {"my_package/helpers.py": helpers + "\n# a remark\n"})
    assert (remarked := digest()) != first
    write(
        package, {"my_package/own.py": own.replace("scale: float", "version = 2\n    scale: float")}
    )
    assert digest() not in (first, remarked)
    write(package, SQUARED)
    assert digest() == first


def test_what_is_not_named_has_the_digest_that_it_had(recipe):
    stage = load(Experiment, recipe).stages["contrastive"]
    assert not {"objective", "optimizer"} & stage.semantic().keys()
    assert stage.minimises == "infonce"


def test_an_experiment_survives_pickling(recipe, package):
    experiment = load(Experiment, recipe, [OWN])
    assert pickle.loads(pickle.dumps(experiment)) == experiment
    assert experiment.replace(seed=3).stages == experiment.stages


def test_a_bare_name_will_do_for_an_objective_and_for_nothing_else(recipe, package):
    write(
        package,
        {
            "my_package/goals.py": """
                from raypipe.train.objective import Objective
                class Goal(Objective):
                    weight: float = 1.0
                    def __call__(self, model, block, loss):
                        return model.read(block).loss(loss), {}
            """
        },
    )
    key = "stages.contrastive.objective"
    name = "my_package.goals:Goal"
    bare = load(Experiment, recipe, [f"{key}={name}"])
    assert bare == load(Experiment, recipe, [f"{key}={{type: {name}}}"])
    assert bare.stages["contrastive"].minimises == f"{name} with infonce"
    changed = load(Experiment, recipe, [f"{key}={name}", f"{key}.weight=2"])
    assert changed.stages["contrastive"].objective.weight == 2
    assert f"{key}.type: expected a name such as" in refused(recipe, f"{key}=infonce")
    assert f"{key}.type: expected a name such as" in refused(recipe, f"{key}={{weight: 2}}")
    assert "subclass of raypipe.train.objective:Objective" in refused(
        recipe, f"{key}=my_package.own:Squared"
    )
    assert "loss: expected a mapping such as {type: my_package.own:Squared}" in refused(
        recipe, "stages.contrastive.loss=my_package.own:Squared"
    )
    filtering = "stages.contrastive.filtering={}"
    assert "filtering: compares the losses" in refused(recipe, f"{key}={name}", filtering)
    fsdp = ["resources.strategy=fsdp", "resources.workers=2"]
    assert f"{key}: reads whole blocks" in refused(recipe, f"{key}={name}", *fsdp)


def test_explain_tells_of_a_plug_in(package, recipe):
    text = "\n".join(explain("my_package.own:Squared", recipe.parent))
    assert text.startswith("my_package.own:Squared  (at stages.NAME.loss)\n")
    assert "Squared error, scaled." in text
    assert "scale: number, > 0; default 1.0. Multiplies the loss." in text
    assert "- my_package.module:Class: one of your own" in "\n".join(
        explain("teacher", recipe.parent)
    )


def test_a_class_without_docstrings_works_and_is_printed(recipe, package):
    from raypipe.recipe.schema import commented_yaml

    write(package, {"my_package/own.py": SQUARED["my_package/own.py"].replace('"""', "# ")})
    experiment = load(Experiment, recipe, [OWN])
    assert "type: my_package.own:Squared" in commented_yaml(experiment)
