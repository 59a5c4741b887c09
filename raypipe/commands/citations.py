"""BibTeX of what an experiment stands on: its data, backbones and losses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from raypipe.datasets.ir import bibliography
from raypipe.evaluation.suites import SUITES

LOSSES: Mapping[str, Sequence[str]] = {
    "bce": ["nogueira2019passage"],
    "hinge": ["herbrich2000large"],
    "ranknet": ["burges2005learning"],
    "margin_mse": ["hofstaetter2020improving"],
    "pair_kl": ["huang2024pairdistill"],
    "infonce": ["gao2021rethink"],
    "listnet": ["cao2007learning"],
    "kl": ["tamber2025conventional"],
    "listmle": ["xia2008listwise"],
    "adr_mse": ["schlatt2024rank"],
    "approx_ndcg": ["qin2010general"],
    "lambda": ["burges2006learning"],
}
"""Loss -> keys of references.bib; mse and weighted_sum are nobody's."""
BACKBONES = (
    ("sentence-transformers/|all[-_]minilm", "reimers2019sentence"),
    ("minilm", "wang2020minilm"),
    ("modernbert", "warner2024smarter"),
    ("deberta-v3", "he2021debertav3"),
    ("xlm-roberta", "conneau2019unsupervised"),
    (r"(?<!xlm-)roberta", "liu2019roberta"),
    ("electra", "clark2020electra"),
    (r"(?<![a-z])bert-", "devlin2018bert"),
)
"""What a backbone's name holds -> key of references.bib."""
_ENTRY = re.compile(r"^@\w+\{([^,\s]+),.*?^\}", re.MULTILINE | re.DOTALL)


def references(recipe: Mapping[str, Any]) -> str:
    """A BibTeX file; what no entry is known of stands in comments, one a line.

    Args:
        recipe: every field, as a job's recipe.yaml has them.
    """
    known = entries((files("raypipe.commands") / "references.bib").read_text("utf-8"))
    found: dict[str, str] = {}
    missing = []
    for backbone in _once(_named(recipe, "backbone")):
        keys = [key for pattern, key in BACKBONES if re.search(pattern, backbone.lower())]
        found |= {key: known[key] for key in keys}
        missing += [] if keys else [f"the backbone {backbone}"]
    for loss in _once(_named(recipe, "type")):
        found |= {key: known[key] for key in LOSSES.get(loss, ())}
    suites = recipe.get("evaluation", {}).get("suites", ())
    ids = [member.dataset for suite in suites for member in SUITES[suite]]
    for dataset in _once([*_named(recipe, "dataset"), *ids]):
        works = bibliography(dataset)
        found |= works
        missing += [] if works else [f"the data {dataset}"]
    comments = "".join(f"% no entry is known of {what}; cite its own paper\n" for what in missing)
    return comments + "\n" * bool(missing) + "\n\n".join(found.values()) + "\n"


def entries(text: str) -> dict[str, str]:
    """Key -> entry of a BibTeX file whose entries end with a brace on a line of its own."""
    return {match[1]: match[0] for match in _ENTRY.finditer(text)}


def _named(tree: Any, name: str, within: bool = False) -> Iterator[str]:
    """Texts below keys that are or end in a name, wherever they stand; a sweep's labels too."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            ends = str(key).rpartition(".")[2] == name
            is_open = within and isinstance(value, str)
            yield from _named(value, name, ends or is_open)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _named(value, name, within)
    elif within and isinstance(tree, str) and tree:
        yield tree


def _once(texts: Iterator[str] | Sequence[str]) -> list[str]:
    return list(dict.fromkeys(texts))
