"""Where and under which names a job is tracked, as a recipe says it. No import of MLflow."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from raypipe.config import Config
from raypipe.names import Name
from raypipe.storage.address import Address

_MLFLOWS_OWN = "Default"
USER_TAG = "mlflow.user"
"""Whom MLflow shows as the user of a run."""


def as_section(value: Any) -> Any:
    """A recipe's `tracking` as a mapping: an address alone is its `uri`."""
    return {} if value is None else {"uri": value} if isinstance(value, str) else value


class Tracking(Config):
    """Where and under which names a job is tracked; an address alone is its `uri`.

    What exists is used; what does not is made where the server allows it.
    """

    uri: Address | None = None
    """MLflow URI; null is $MLFLOW_TRACKING_URI, or a file under $RAYPIPE_HOME."""
    experiment: Name | None = None
    """Of MLflow; null is the recipe's name."""
    registered_model: Name | None = None
    """In MLflow's registry, whose alias `best` the best model gets; null is the recipe's name."""
    owner: Name | None = None
    """Who MLflow shows as the user of the runs; null is the login name."""
    tags: dict[Name, str] = Field(default_factory=dict)
    """Of every run, and of the registered model's version."""

    @model_validator(mode="before")
    @classmethod
    def _address_alone(cls, value: Any) -> Any:
        return as_section(value)

    @field_validator("experiment")
    @classmethod
    def _own(cls, name: str | None) -> str | None:
        return not_mlflows_own(name)

    @field_validator("tags")
    @classmethod
    def _free(cls, tags: dict[str, str]) -> dict[str, str]:
        for name in tags:
            if name.startswith(("mlflow.", "raypipe.")):
                raise ValueError(
                    f"expected tags of your own, found {name!r}, which others write; rename it"
                )
        return tags


def not_mlflows_own(name: str | None) -> str | None:
    """The name of an experiment, if it is another than that of MLflow's own.

    Raises:
        ValueError: it is MLflow's own.
    """
    if name == _MLFLOWS_OWN:
        raise ValueError(
            "expected another name than that of MLflow's own experiment, whose files go below "
            "the working directory; choose another"
        )
    return name


def tracked_tags(tracking: Tracking) -> dict[str, str]:
    """The tags of every run of a job, its owner among them."""
    owner = {} if tracking.owner is None else {"owner": tracking.owner, USER_TAG: tracking.owner}
    return {**tracking.tags, **owner}
