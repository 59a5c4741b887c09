"""Reading a token store: texts tokenised once, memory-mapped, addressed by row number."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.storage.parts import arrow_parts

Ids = np.ndarray[Any, Any]


def token_table(rows: list[list[int]], vocabulary: int) -> pa.Table:
    """One shard: token ids per text, uint16 if the vocabulary fits, int32 otherwise."""
    dtype = pa.uint16() if vocabulary <= 1 << 16 else pa.int32()
    return pa.table({"tokens": pa.array(rows, type=pa.large_list(dtype))})


class TokenReader:
    """All shards of a token store, or of several in order, as one sequence of token-id arrays."""

    def __init__(self, *folders: Path) -> None:
        self._starts: list[int] = []
        self._shards: list[tuple[Ids, Ids]] = []
        total = 0
        for reader in chain.from_iterable(map(arrow_parts, folders)):
            column = reader.get_batch(0).column(0)
            offsets = column.offsets.to_numpy()
            self._starts.append(total)
            self._shards.append((offsets, column.values.to_numpy()))
            total += len(offsets) - 1
        self._total = total

    def __len__(self) -> int:
        return self._total

    def __getitem__(self, row: int) -> Ids:
        """Token ids of one text: a view into the mapped file."""
        if not 0 <= row < self._total:
            raise IndexError(f"row {row} of {self._total}")
        shard = bisect_right(self._starts, row) - 1
        offsets, values = self._shards[shard]
        at = row - self._starts[shard]
        ids: Ids = values[offsets[at] : offsets[at + 1]]
        return ids


def joined_reader(inputs: Mapping[str, Any], kind: str) -> TokenReader:
    """The token stores of all sets that are trained on: `kind`, then each `kind of NAME` in order.

    Args:
        inputs: artifacts by name.
        kind: `query_tokens` or `doc_tokens`.
    """
    names = [name for name in inputs if name == kind or name.startswith(f"{kind} of ")]
    return TokenReader(*(inputs[name].local() for name in names))
