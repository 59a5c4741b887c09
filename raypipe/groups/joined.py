"""Training groups of several collections as one set: each is mined in its own, then shares count.

Groups hold row numbers, so those of a further set begin behind the queries and documents of the
sets before it. Nothing is copied but the groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe.config import ConfigError
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE
from raypipe.groups.training_groups import CHUNK, TrainingGroups
from raypipe.records import WEIGHT
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.storage.parts import arrow_parts, part_name
from raypipe.tables.text_table import TextTable

OWN = "own"
"""The name of the first set in counters."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class FurtherGroups:
    """Groups of another collection, and how many of them are taken."""

    name: str
    groups: TrainingGroups
    weight: float | None
    """Groups for each group of the first set; None takes every group once."""


@dataclass(frozen=True)
class JoinedGroups(Step):
    """What a stage trains on that names further sets: any stretch of it has their shares."""

    first: TrainingGroups
    further: tuple[FurtherGroups, ...]
    seed: int

    kind: ClassVar[str] = "groups"

    def __post_init__(self) -> None:
        for one in self.further:
            if one.groups.compares != self.first.compares:
                raise ConfigError(
                    f"groups.further.{one.name}.teacher: expected comparisons of pairs in every "
                    "set or in none, found them in one; name teachers of one kind"
                )

    @property
    def name(self) -> str:
        return "-and-".join([self.first.name, *(one.name for one in self.further)])[:90]

    @property
    def negatives(self) -> Any:
        """Those of the first set, whose collection the model is made for."""
        return self.first.negatives

    @property
    def compares(self) -> bool:
        return self.first.compares

    @property
    def members(self) -> Mapping[str, TrainingGroups]:
        """The groups of every set by its name, in order."""
        return {OWN: self.first, **{one.name: one.groups for one in self.further}}

    def spec(self) -> Mapping[str, Any]:
        return {"weights": [[one.name, one.weight] for one in self.further], "seed": self.seed}

    def inputs(self) -> Mapping[str, Step]:
        return {
            f"{part} of {name}": step
            for name, groups in self.members.items()
            for part, step in (
                ("groups", groups),
                ("queries", groups.negatives.queries),
                ("collection", groups.negatives.collection),
            )
        }

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        """Write the groups.

        Returns:
            Counts: `groups` and `pairs` in all; of each set `groups_of_NAME` and `pairs_of_NAME`,
            and where the weight takes another number than there are `groups_left_out_of_NAME` or
            `groups_repeated_of_NAME`.
        """
        tables = weighted_alike(
            [read_table(attempt.inputs[f"groups of {name}"]) for name in self.members]
        )
        weights = [None, *(one.weight for one in self.further)]
        wanted = [
            wanted_groups(w, len(t), len(tables[0])) for w, t in zip(weights, tables, strict=True)
        ]
        counts: dict[str, int] = {"groups": sum(wanted), "pairs": 0}
        queries = documents = 0
        taken = []
        for place, (name, table) in enumerate(zip(self.members, tables, strict=True)):
            rows = drawn_rows(len(table), wanted[place], [self.seed, place])
            chosen = shifted(table, queries, documents).take(rows)
            taken.append(chosen)
            counts |= counts_of(name, chosen, len(table))
            counts["pairs"] += counts[f"pairs_of_{name}"]
            queries += len(TextTable(attempt.inputs[f"queries of {name}"].local() / QUERIES_FILE))
            docs = attempt.inputs[f"collection of {name}"].local() / DOCS_FILE
            documents += len(TextTable(docs))
        joined = pa.concat_tables(taken).take(mixed_order(wanted))
        for number, start in enumerate(range(0, len(joined), CHUNK)):
            part = joined.slice(start, CHUNK).combine_chunks()
            with (
                attempt.open(part_name(number, "arrow")) as sink,
                pa.ipc.new_file(sink, part.schema) as writer,
            ):
                writer.write_table(part)
        return counts


def read_table(groups: Artifact) -> pa.Table:
    """The rows of a groups artifact."""
    parts = [reader.read_all() for reader in arrow_parts(groups.local())]
    return pa.concat_tables(parts).replace_schema_metadata()


def weighted_alike(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """The tables, all with weights if one has them: a query without clicks counts 1."""
    if not any(WEIGHT.name in table.column_names for table in tables):
        return list(tables)
    return [
        table
        if WEIGHT.name in table.column_names
        else table.append_column(WEIGHT, pa.array(np.ones(len(table)), WEIGHT.type))
        for table in tables
    ]


def wanted_groups(weight: float | None, there: int, first: int) -> int:
    """How many groups a set gives, at least one.

    Args:
        weight: as in `FurtherGroups`.
        there: the set's own number.
        first: the first set's number.
    """
    return there if weight is None else max(round(weight * first), 1)


def drawn_rows(there: int, wanted: int, seed: Sequence[int]) -> Array:
    """Rows of a set in an order of chance; where more are wanted, all of them again in that order.

    Where all are wanted once, they keep their order.
    """
    if wanted == there:
        return np.arange(there)
    return np.resize(np.random.default_rng(seed).permutation(there), wanted)


def mixed_order(sizes: Sequence[int]) -> Array:
    """Positions in the sets one after the other, such that every stretch has their shares.

    Sizes 2 and 4: positions 2, 0, 3, 4, 1, 5.
    """
    places = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
    return np.argsort(places, kind="stable")


def shifted(table: pa.Table, queries: int, documents: int) -> pa.Table:
    """The groups with row numbers behind those of other sets."""
    docs = table["doc_indices"].combine_chunks()
    moved = pa.ListArray.from_arrays(docs.offsets, pc.add(docs.values, documents))
    changed = {"query_index": pc.add(table["query_index"], queries), "doc_indices": moved}
    for name, column in changed.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), column)
    return table


def counts_of(name: str, chosen: pa.Table, there: int) -> dict[str, int]:
    """The counters of one set.

    Args:
        chosen: its groups that are trained on.
        there: its own number of groups.
    """
    pairs = pc.sum(pc.list_value_length(chosen["doc_indices"])).as_py() or 0
    counts = {f"groups_of_{name}": len(chosen), f"pairs_of_{name}": pairs}
    if len(chosen) < there:
        counts[f"groups_left_out_of_{name}"] = there - len(chosen)
    if len(chosen) > there:
        counts[f"groups_repeated_of_{name}"] = len(chosen) - there
    return counts


def groups_by_set(counts: Mapping[str, Any]) -> dict[str, int]:
    """How many groups each set gave, by its name; empty for groups that were not joined."""
    prefix = "groups_of_"
    return {
        name.removeprefix(prefix): number
        for name, number in counts.items()
        if name.startswith(prefix)
    }
