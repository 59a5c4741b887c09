"""The runner of every Ray Data job: a planned list of chunks, one row and one file per chunk.

No model batch crosses a chunk, and files have fixed names, so the bytes do not depend on how many
actors there were or in which order they finished.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.artifacts import Attempt
from raypipe.resources import Context

Counts = dict[str, int]
Work = Callable[[range], tuple[pa.Table, Counts]]
"""Rows of the input to a table of results and counters of drops."""


class Job(Protocol):
    """What an actor instantiates: a picklable description of the work."""

    def build(self) -> Work:
        """Load the model or the index; called once per actor."""
        ...


class _ChunkActor:
    def __init__(self, job: Job, attempt: Attempt, suffix: str) -> None:
        self._work = job.build()
        self._attempt = attempt
        self._suffix = suffix

    def __call__(self, batch: pa.Table) -> pa.Table:
        (row,) = batch.to_pylist()
        counts = self.chunk(row["chunk_id"], range(row["start"], row["stop"]))
        return pa.table({"chunk_id": [row["chunk_id"]], "counts": [json.dumps(counts)]})

    def chunk(self, chunk_id: int, rows: range) -> Counts:
        table, counts = self._work(rows)
        with self._attempt.open(f"part-{chunk_id:05d}.{self._suffix}") as sink:
            if self._suffix == "arrow":  # one batch per file: memory-mapped without a copy
                table = table.combine_chunks()
                with pa.ipc.new_file(sink, table.schema) as writer:
                    writer.write_table(table)
            else:
                pq.write_table(table, sink)
        return counts


def _one_chunk(job: Job, attempt: Attempt, suffix: str, rows: int) -> Counts:
    return _ChunkActor(job, attempt, suffix).chunk(0, range(rows))


def run_chunks(
    job: Job,
    rows: int,
    chunk_rows: int,
    attempt: Attempt,
    context: Context,
    *,
    model: bool,
    suffix: str = "parquet",
) -> Counts:
    """Run `job` over `rows` input rows in chunks, on an actor pool.

    Args:
        chunk_rows: input rows per chunk and file.
        model: the actors want a GPU where there is one.
        suffix: "parquet", or "arrow" for files that are memory-mapped later.

    Returns:
        The counters of all chunks, added up, with "rows".
    """
    import ray

    data = ray.data.DataContext.get_current()
    data.enable_progress_bars = context.progress_bars
    data.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # "bars disabled"
    starts = range(0, rows, chunk_rows)
    plan = [
        {"chunk_id": number, "start": start, "stop": min(start + chunk_rows, rows)}
        for number, start in enumerate(starts)
    ]
    compute, ask = context.resources.pool(len(plan), model=model)
    if len(plan) == 1:  # a task finds a warm process, an actor pool starts one: 5 s on 2 cores
        task = ray.remote(scheduling_strategy="SPREAD", **ask)(_one_chunk)
        return {"rows": rows, **ray.get(task.remote(job, attempt, suffix, rows))}
    results = ray.data.from_items(plan, override_num_blocks=len(plan)).map_batches(
        _ChunkActor,
        fn_constructor_args=(job, attempt, suffix),
        batch_size=1,
        batch_format="pyarrow",
        compute=compute,
        **ask,
    )
    done = results.take_all()
    if len(done) != len(plan):
        raise RuntimeError(f"{attempt.step.path}: {len(done)} of {len(plan)} chunks came back")
    total: Counter[str] = Counter({"rows": rows})
    for row in done:
        total.update(json.loads(row["counts"]))
    return dict(total)
