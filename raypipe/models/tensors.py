"""The tensors of checkpoints, read and written one at a time."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

_FLOATS = {"F64", "F32", "F16", "BF16"}
_ITEM_SIZE = {"F32": 4, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes per element, by the type names of safetensors."""
Layout = dict[str, tuple[str, tuple[int, ...]]]
"""Tensor name to type and shape."""


class Weights:
    """The tensors of a directory's safetensors files, read one at a time."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        from safetensors import safe_open

        self.folder = folder
        self._files: dict[str, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            file = stack.enter_context(safe_open(str(path), framework="pt"))
            self._files |= dict.fromkeys(file.keys(), file)

    def layout(self) -> Layout:
        """No data is read; every floating-point type counts as F32."""
        found = {}
        for name, file in self._files.items():
            one = file.get_slice(name)
            kind = "F32" if one.get_dtype() in _FLOATS else one.get_dtype()
            found[name] = (kind, tuple(one.get_shape()))
        return found

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor


def common_layout(weights: Sequence[Weights]) -> Layout:
    """Of the mean, the wider types first, so that all data are aligned.

    Raises:
        ValueError: the members' tensors differ in name, shape or kind.
    """
    first, *others = (one.layout() for one in weights)
    for found, one in zip(others, weights[1:], strict=True):
        for name in sorted(first.keys() | found.keys()):
            if first.get(name) != found.get(name):
                raise ValueError(
                    f"{one.folder}: expected the architecture of {weights[0].folder}, with {name} "
                    f"as {_shown(first.get(name))}, found {_shown(found.get(name))}; average seeds "
                    "of one recipe"
                )
    return dict(sorted(first.items(), key=lambda one: (-_ITEM_SIZE[one[1][0]], one[0])))


def _shown(found: tuple[str, tuple[int, ...]] | None) -> str:
    return "no tensor" if found is None else f"{found[0]} {list(found[1])}"


def write_tensors(sink: BinaryIO, layout: Layout, tensors: Iterable[Tensor]) -> None:
    """A safetensors file, written as a stream: the library's own writer needs all data at once.

    Args:
        tensors: in the order of the layout.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (kind, shape) in layout.items():
        start, end = end, end + math.prod(shape) * _ITEM_SIZE[kind]
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    sink.write(struct.pack("<Q", len(text)) + text)
    for tensor in tensors:
        sink.write(tensor.contiguous().numpy().tobytes())
