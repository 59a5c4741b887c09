"""The mean of several checkpoints' weights: one model that costs no training."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from raypipe.artifacts import Artifact, Attempt, Step
from raypipe.models.tensors import Weights, common_layout, write_tensors

_TOKENIZER = (
    *("tokenizer*.json", "vocab.json", "special_tokens_map.json", "added_tokens.json"),
    *("*.txt", "*.model", "*.jinja"),
)
_UNIMPORTANT = {"_name_or_path", "transformers_version"}


@dataclass(frozen=True)
class AveragedWeights(Step):
    """The arithmetic mean of checkpoints of one architecture, in float32.

    The uniform soup of Wortsman et al. 2022 (arXiv 2203.05482). Its members share all weights they
    start from; seeds of one recipe share the backbone's and draw their own heads, so the mean of
    few of them can be much worse than each: a row of a table, not a promise.
    """

    members: tuple[Step, ...]
    """Trained stages, at least two, in any order: their mean is the same to the last bit."""

    kind: ClassVar[str] = "checkpoint"

    def __post_init__(self) -> None:
        if len({one.digest for one in self.members}) < max(len(self.members), 2):
            raise ValueError(
                f"expected at least two different checkpoints, found {len(self.members)} of which "
                f"{len({one.digest for one in self.members})} differ; train more seeds"
            )

    @property
    def name(self) -> str:
        return f"mean-of-{len(self.members)}-{self.members[0].name}"

    def inputs(self) -> Mapping[str, Step]:
        ordered = sorted(self.members, key=lambda one: one.digest)
        return {f"member_{number}": one for number, one in enumerate(ordered)}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        members = [attempt.inputs[f"member_{number}"] for number in range(len(self.members))]
        folders = [one.local() for one in members]
        config = _same_config(folders)
        for name in _same_tokenizer(members, folders):
            with attempt.open(name) as sink:
                sink.write((folders[0] / name).read_bytes())
        with ExitStack() as stack:
            weights = [Weights(folder, stack) for folder in folders]
            shapes = common_layout(weights)
            spread = _Spread()
            with attempt.open("model.safetensors") as sink:
                write_tensors(sink, shapes, _means(weights, spread))
        with attempt.open("config.json") as sink:
            sink.write(json.dumps(config, indent=2).encode())
        return {
            "members": len(members),
            "tensors": len(shapes),
            "parameters": sum(math.prod(shape) for _, shape in shapes.values()),
            "relative_spread": spread.relative(),
        }


class _Spread:
    """How far apart the members are: root mean square deviation over that of the mean weights."""

    def __init__(self) -> None:
        self._deviation = self._size = 0.0

    def add(self, tensors: Sequence[Tensor], mean: Tensor) -> None:
        deviations = sum(float((one.double() - mean).square().sum()) for one in tensors)
        self._deviation += deviations / len(tensors)
        self._size += float(mean.double().square().sum())

    def relative(self) -> float:
        return math.sqrt(self._deviation / self._size) if self._size else 0.0


def mean(tensors: Sequence[Tensor], name: str) -> Tensor:
    """Of floating-point tensors in float32, summed in float64; others must be equal.

    Raises:
        ValueError: integers or booleans that differ.
    """
    first = tensors[0]
    if first.is_floating_point():
        total = torch.zeros(first.shape, dtype=torch.float64)
        for one in tensors:
            total += one
        return (total / len(tensors)).float()
    if not all(torch.equal(first, one) for one in tensors):
        raise ValueError(
            f"{name}: expected equal {first.dtype} values in all checkpoints, found others; "
            "average seeds of one recipe"
        )
    return first


def _means(weights: Sequence[Weights], spread: _Spread) -> Iterator[Tensor]:
    """In the order of `common_layout`; one tensor of every member is in memory at a time."""
    for name in common_layout(weights):
        tensors = [one[name] for one in weights]
        found = mean(tensors, name)
        if found.is_floating_point():
            spread.add(tensors, found)
        yield found


def _same_config(folders: Sequence[Path]) -> dict[str, Any]:
    """The first member's config.json, as float32.

    Equal shapes are not enough: the number of heads, say, is in no shape.
    """
    first, *others = (json.loads((one / "config.json").read_text("utf-8")) for one in folders)
    for folder, config in zip(folders[1:], others, strict=True):
        keys = sorted((first.keys() | config.keys()) - _UNIMPORTANT)
        other = [key for key in keys if first.get(key) != config.get(key)]
        if other:
            raise ValueError(
                f"{folder}: expected the config.json of {folders[0]}, found another "
                f"{', '.join(other)}; average seeds of one recipe"
            )
    return {**first, **{key: "float32" for key in ("dtype", "torch_dtype") if key in first}}


def _same_tokenizer(members: Sequence[Artifact], folders: Sequence[Path]) -> list[str]:
    """Names of the tokenizer files; every member has the same ones with the same content."""
    sums = [
        {
            path.name: one.manifest["files"][path.name]["sha256"]
            for pattern in _TOKENIZER
            for path in folder.glob(pattern)
        }
        for one, folder in zip(members, folders, strict=True)
    ]
    for folder, found in zip(folders, sums, strict=True):
        other = sorted(name for name, _ in found.items() ^ sums[0].items())
        if other:
            raise ValueError(
                f"{folder}: expected the tokenizer of {folders[0]}, found another {other[0]}; "
                "average seeds of one recipe"
            )
    return sorted(sums[0])
