"""Names of other trainers lead to fields that there are."""

from __future__ import annotations

import pytest

from raypipe.recipe.errors import field_type, mapping_value
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.foreign_names import OWN_NAMES


@pytest.mark.parametrize("field", sorted(set(OWN_NAMES.values())))
def test_every_answer_is_a_field(field):
    kind = Experiment
    for part in field.split("."):
        kind = mapping_value(kind) if part == "NAME" else field_type(kind, part)
        assert kind is not None, part


def test_no_field_of_a_stage_or_of_the_recipe_has_a_foreign_name():
    from raypipe.stages.stage import StageConfig

    for model in (Experiment, StageConfig):
        assert not model.model_fields.keys() & OWN_NAMES.keys()
