"""A cross-encoder with drawn weights, as transformers saves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def drawn_ranker(folder: Path, backbone: Path, said: dict[str, Any]) -> Path:
    """The folder with the model.

    Args:
        said: what raypipe writes into a checkpoint's config.json.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=1)
    torch.nn.init.normal_(model.classifier.weight)
    model.config.raypipe = said
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(backbone).save_pretrained(folder)
    return folder
