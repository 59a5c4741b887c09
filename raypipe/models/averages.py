"""The mean of several checkpoints' weights: one model that costs no training."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from raypipe.models.weights import SIMILARITY, head_code
from raypipe.storage.artifacts import Artifact, Attempt, Step

_WEIGHTS = "model.safetensors"
_TOKENIZER = (
    *("tokenizer*.json", "vocab.json", "special_tokens_map.json", "added_tokens.json"),
    *("*.txt", "*.model", "*.jinja"),
)
_UNIMPORTANT = {"_name_or_path", "transformers_version"}
_FLOATS = {"F64", "F32", "F16", "BF16"}
Layout = Mapping[str, tuple[str, tuple[int, ...]]]
"""Tensor name to safetensors' name of the type and to the shape; every float type counts as F32."""


@dataclass(frozen=True)
class AveragedWeights(Step):
    """The arithmetic mean of checkpoints of one architecture, in float32.

    The uniform soup of Wortsman et al. 2022 (arXiv 2203.05482). The paper's members start
    from one checkpoint with all weights in common. Seeds of one recipe have only the backbone's
    weights in common and draw their own heads, so their mean can be much worse than each of them.
    """

    members: tuple[Step, ...]
    """Trained stages, at least two, in any order: their mean is the same to the last bit."""

    kind: ClassVar[str] = "checkpoint"

    def __post_init__(self) -> None:
        different = len({member.digest for member in self.members})
        if different < max(len(self.members), 2):
            raise ValueError(
                f"expected at least two different checkpoints, found {len(self.members)} of which "
                f"{different} differ; train more seeds"
            )

    @property
    def name(self) -> str:
        return f"mean-of-{len(self.members)}-{self.members[0].name}"

    def inputs(self) -> Mapping[str, Step]:
        ordered = sorted(self.members, key=lambda member: member.digest)
        return {f"member_{number}": member for number, member in enumerate(ordered)}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        """Write config.json, the tokenizer and the mean weights.

        Raises:
            ValueError: the members differ in more than the values of their weights.
            OSError: the directory for temporary files does not take the mean.
        """
        members = [attempt.inputs[f"member_{number}"] for number in range(len(self.members))]
        folders = [member.local() for member in members]
        config = _same_config(folders)
        for name in _same_tokenizer(members, folders):
            attempt.put_file(folders[0] / name, name)
        with ExitStack() as stack:
            weights = [MemberTensors(folder, stack) for folder in folders]
            layout = same_layout(weights)
            spread = _Spread()
            scratch = Path(stack.enter_context(TemporaryDirectory()))
            path = write_tensors(scratch, _means(weights, sorted(layout), spread))
            attempt.put_file(path, _WEIGHTS)
        if code := head_code(str(config.get("model_type"))):
            attempt.put_file(code, f"{SIMILARITY}.py")
        with attempt.open("config.json") as sink:
            sink.write(json.dumps(config, indent=2).encode())
        return {
            "members": len(members),
            "tensors": len(layout),
            "parameters": sum(math.prod(shape) for _, shape in layout.values()),
            "relative_spread": spread.relative(),
        }


class MemberTensors:
    """The tensors of a member's safetensors files (one file or shards), read one at a time."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        """Open the files until `stack` closes.

        Raises:
            ValueError: a file is truncated, or is no safetensors file.
        """
        self.folder = folder
        self._file_of: dict[str, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
            except SafetensorError as error:
                raise ValueError(
                    f"{path}: expected a whole safetensors file, found a damaged one ({error}); "
                    "train this member again"
                ) from None
            self._file_of |= dict.fromkeys(file.keys(), file)

    def layout(self) -> Layout:
        """Types and shapes from the files' headers; no tensor is read."""
        slices = {name: file.get_slice(name) for name, file in self._file_of.items()}
        return {
            name: ("F32" if part.get_dtype() in _FLOATS else part.get_dtype(), (*part.get_shape(),))
            for name, part in slices.items()
        }

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._file_of[name].get_tensor(name)
        return tensor


def same_layout(weights: Sequence[MemberTensors]) -> Layout:
    """The layout that all members have.

    Raises:
        ValueError: the members' tensors differ in name, shape or type.
    """
    first, *others = weights
    expected = first.layout()
    for member in others:
        layout = member.layout()
        for name in sorted(expected.keys() | layout.keys()):
            if expected.get(name) != layout.get(name):
                raise ValueError(
                    f"{member.folder}: expected the architecture of {first.folder}, with {name} "
                    f"as {_shown(expected.get(name))}, found {_shown(layout.get(name))}; average "
                    "seeds of one recipe"
                )
    return expected


def _shown(tensor: tuple[str, tuple[int, ...]] | None) -> str:
    return "no tensor" if tensor is None else f"{tensor[0]} {list(tensor[1])}"


def mean(tensors: Sequence[Tensor], name: str) -> Tensor:
    """The mean of floating-point tensors in float32, summed in float64; other types must be equal.

    Raises:
        ValueError: integers or booleans differ.
    """
    first = tensors[0]
    if first.is_floating_point():
        total = torch.zeros(first.shape, dtype=torch.float64)
        for tensor in tensors:
            total += tensor
        return (total / len(tensors)).float()
    if not all(torch.equal(first, tensor) for tensor in tensors):
        raise ValueError(
            f"{name}: expected equal {first.dtype} values in all checkpoints, found others; "
            "average seeds of one recipe"
        )
    return first


class _Spread:
    """The distance of the members: root mean square deviation over that of the mean weights."""

    def __init__(self) -> None:
        self._deviation = self._size = 0.0

    def add(self, tensors: Sequence[Tensor], average: Tensor) -> None:
        deviations = sum(float((tensor.double() - average).square().sum()) for tensor in tensors)
        self._deviation += deviations / len(tensors)
        self._size += float(average.double().square().sum())

    def relative(self) -> float:
        return math.sqrt(self._deviation / self._size) if self._size else 0.0


def _means(
    weights: Sequence[MemberTensors], names: Iterable[str], spread: _Spread
) -> Iterator[tuple[str, Tensor]]:
    """Each name with its mean; one tensor of every member is in memory at a time."""
    for name in names:
        tensors = [member[name] for member in weights]
        average = mean(tensors, name)
        if average.is_floating_point():
            spread.add(tensors, average)
        yield name, average


def write_tensors(folder: Path, tensors: Iterable[tuple[str, Tensor]]) -> Path:
    """Write tensors to one safetensors file of `folder`, and hold one of them in memory at a time.

    safetensors writes a file from all its tensors at once. So every tensor first goes to a file of
    its own, and the whole is written from these files, which are mapped and not read. The folder
    needs room for the tensors twice.

    Raises:
        OSError: the folder has no room.
    """
    parts: dict[str, Tensor] = {}
    path = folder / _WEIGHTS
    try:
        for number, (name, tensor) in enumerate(tensors):
            part = folder / f"tensor-{number}.safetensors"
            save_file({name: tensor.contiguous()}, part)
            parts |= load_file(part)
        save_file(parts, path, {"format": "pt"})  # transformers 4 refuses files without it
    except SafetensorError as error:
        raise OSError(
            f"{path}: expected room for the mean weights twice, found an error ({error}); free "
            "space there, or set TMPDIR to a larger disk"
        ) from None
    return path


def _same_config(folders: Sequence[Path]) -> dict[str, Any]:
    """The config.json that all members have, with float32 as its type.

    Equal shapes are not enough: no shape tells the number of attention heads, for instance.

    Raises:
        ValueError: the members' files differ in a key that matters.
    """
    first, *others = (json.loads((folder / "config.json").read_text("utf-8")) for folder in folders)
    for folder, config in zip(folders[1:], others, strict=True):
        keys = sorted((first.keys() | config.keys()) - _UNIMPORTANT)
        differing = [key for key in keys if first.get(key) != config.get(key)]
        if differing:
            raise ValueError(
                f"{folder}: expected the config.json of {folders[0]}, found another "
                f"{', '.join(differing)}; average seeds of one recipe"
            )
    return {**first, **{key: "float32" for key in ("dtype", "torch_dtype") if key in first}}


def _same_tokenizer(members: Sequence[Artifact], folders: Sequence[Path]) -> list[str]:
    """Names of the tokenizer files, which all members have with the same content.

    Raises:
        ValueError: a member has another tokenizer file, or one of another content.
    """
    checksums = [
        {
            path.name: member.manifest["files"][path.name]["sha256"]
            for pattern in _TOKENIZER
            for path in folder.glob(pattern)
        }
        for member, folder in zip(members, folders, strict=True)
    ]
    for folder, checksum_of in zip(folders, checksums, strict=True):
        differing = sorted(name for name, _ in checksum_of.items() ^ checksums[0].items())
        if differing:
            raise ValueError(
                f"{folder}: expected the tokenizer of {folders[0]}, found another {differing[0]}; "
                "average seeds of one recipe"
            )
    return sorted(checksums[0])
