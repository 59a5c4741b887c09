"""The facts of a model card, and the code that a card shows."""

from __future__ import annotations

import re

from raypipe.models.card import CardFacts, GroupFacts, QueryFacts

FACTS = CardFacts(
    name="scifact re-ranker",
    backbone="MiniLM-L6-H384-uncased",
    base_model="nreimers/MiniLM-L6-H384-uncased",
    recipe="name: scifact\nstages:\n  contrastive:\n    loss: {type: infonce}\n    lr: 2e-05\n",
    stages=("contrastive", "distil"),
    queries=(
        QueryFacts("train", "beir/scifact/train", None, 709, 5183),
        QueryFacts("validation", "beir/scifact/train", None, 100, 5183),
        QueryFacts("test", "beir:/home/someone/data/own|set/", "test", 300, 12345),
    ),
    groups=(
        GroupFacts(("contrastive",), 709, 5672, "0123456789abcdef"),
        GroupFacts(("distil",), 709, 35450, "fedcba9876543210"),
    ),
    metrics={
        "validation": {"nDCG@10": 0.71239, "RR@10": 0.7},
        "test": {"nDCG@10": 0.70006, "RR@10": 0.68, "Judged@10": 0.31},
        "test, first stage": {"nDCG@10": 0.6863},
    },
    truncation={"type": "longest_first", "max_length": 256},
    reads="pairs of up to 256 tokens",
    versions={"raypipe": "0.1.0", "torch": "2.13.0"},
)


def blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
