"""Whether a model's config.json promises a trained relevance head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raypipe.config import ConfigError


def has_scorer(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a sequence classifier with one label."""
    names = config.get("architectures") or [""]
    labels = config.get("id2label") or {}
    return str(names[0]).endswith("ForSequenceClassification") and len(labels) == 1


def require_scorer(config: Mapping[str, Any], where: str) -> None:
    """Refuse a model whose head would be drawn at random.

    Args:
        config: the content of its config.json.

    Raises:
        ConfigError: it is no sequence classifier with one label.
    """
    if has_scorer(config):
        return
    found = str((config.get("architectures") or ["no architecture"])[0])
    if found.endswith("ForSequenceClassification"):
        found += f" with {len(config.get('id2label') or ()) or 2} labels"  # 2 are not written down
    raise ConfigError(
        f"{where}: expected a sequence classifier with one label, found {found}; a fresh head "
        "would teach noise"
    )
